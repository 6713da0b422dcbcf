"""Pages of HTML that open anywhere: a film, heat maps, the table of taps."""
