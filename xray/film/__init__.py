"""The record of one run, on disk or in memory: shot, read, replayed, exported."""

from xray.door import door

__getattr__, __dir__, __all__ = door(
    __name__, {"cache": "Cache run", "film": "Film", "heat_map": "HeatMap heat_maps"}
)
