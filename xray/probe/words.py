"""The closed table of words for rules and functions: what a film may name, and nothing else."""

import operator
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

OF_KERAS = (  # pure functions of one array, by the word "ops." and their name
    *("abs", "absolute", "negative", "sign", "square", "sqrt", "exp", "log", "zeros_like"),
    *("ones_like", "tanh", "sigmoid", "relu", "silu", "gelu", "softmax"),
    *("mean", "std", "var", "sum", "max", "min", "norm"),
)


@cache
def classes() -> dict[str, type]:
    """Word → the class of a rule, or of what a rule is made of."""
    from .interventions import Edit, Mean, Probe

    return {"probe": Probe, "edit": Edit, "mean": Mean}


@cache
def edits_by_source() -> dict[str, Callable]:
    """Word → a function of a value and what is given in its place."""
    from .interventions import take

    return {"take": take, "add": operator.add, "multiply": operator.mul}


@cache
def functions() -> dict[str, Callable]:
    """Word → a function of a value."""
    from keras import ops

    return {f"ops.{name}": getattr(ops, name) for name in OF_KERAS}


def is_known(function: Any) -> bool:
    """Whether it is a function of these tables: a pure one."""
    return word_for(function, functions() | edits_by_source()) is not None


def word_for(value: Any, table: Mapping[str, Any]) -> str | None:
    return next((word for word, known in table.items() if known is value), None)
