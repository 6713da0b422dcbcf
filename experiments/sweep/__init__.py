"""Many runs of one experiment, each once: `python -m experiments.sweep`, or from Python

from experiments.sweep import rows, sweep

sweep(main, [Options(seed=seed) for seed in range(100)], out="sweeps/mine")
"""

from .driver import Swept, sweep
from .folder import rows

__all__ = ["Swept", "rows", "sweep"]
