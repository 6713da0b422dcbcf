"""Where do two runs part? Two films, two backends, two precisions, a port and its original."""

from xray.door import door

__getattr__, __dir__, __all__ = door(
    __name__,
    {
        "backends": "BACKENDS Asked inputs_of reads_of reads_on worth_comparing",
        "comparison": "Arrays Comparison Row by_part compare compare_films",
        "nonfinite": "first_nan",
        "ports": "compare_models",
        "torch_hooks": "hooked",
    },
)
