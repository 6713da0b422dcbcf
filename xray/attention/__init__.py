"""Where each word looks: from cross-attention to one map per word."""

from xray.door import door

__getattr__, __dir__, __all__ = door(
    __name__,
    {
        "attention": "SPECIAL TIMES Words look looks_at maps phrases pooling_for probe word_maps "
        "words_at",
        "pooling": "AGAINST CROSS DAAM DEFAULT INSIDE Pooling",
    },
)
