"""The gallery: every experiment run on the phantom, each with a page."""
