"""Read or replace a value inside a network's call, by its address."""

from xray.door import door

__getattr__, __dir__, __all__ = door(
    __name__,
    {
        "gradients": "Gradient gradient",
        "instrumented": "Instrument instrument",
        "interventions": "Edit Feed Mean PerStep Probe Reads take",
        "session": "capture looking watched",
        "survey": "taps",
    },
)
