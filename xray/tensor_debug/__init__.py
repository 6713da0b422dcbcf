"""An array that can tell what it is."""

from xray.door import door

__getattr__, __dir__, __all__ = door(
    __name__,
    {"summary": "bars plain_bytes", "tensor": "DebugTensor SHOWN SPACES lerp slerp"},
)
