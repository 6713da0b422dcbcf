"""How true are the maps of words? Methods of attribution, held against exact masks."""

from xray.door import door

__getattr__, __dir__, __all__ = door(
    __name__,
    {
        "benchmark": "score",
        "case": "Case",
        "methods": "METHODS",
        "rating": "Row",
    },
)
