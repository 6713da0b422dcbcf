"""A network traced by Keras and compiled by OpenVINO."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import openvino as ov
from keras import tree

from ..backend import warn_of_untested
from ..checkpoint.mapped import given_back_meanwhile
from ..compiled import gaps_told
from ..keras_private import openvino_inputs
from ..precisions import PackedAsBfloat16
from .graph import flatten_places, multiply_by_place
from .graph_cache import compiled_before, keep, name_of


def with_openvino(network: keras.Model, call: Callable) -> Callable:
    """Traced and compiled once for every shape, NumPy in and out. The precision is said outright:
    left alone, OpenVINO chooses bfloat16 where the CPU has it, and int8 for the activations of
    int8 weights."""
    warn_of_untested({"keras": keras.__version__, "openvino": ov.__version__})
    core = ov.Core()
    hint = "bf16" if isinstance(network.dtype_policy, PackedAsBfloat16) else "f32"
    options = {"INFERENCE_PRECISION_HINT": hint, "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
    made: dict[tuple, tuple[Any, Any]] = {}  # shapes and dtypes → compiled, and how it is nested

    def run(*arrays: Any) -> Any:
        flat = [np.asarray(array) for array in tree.flatten(arrays)]
        key = tuple((array.shape, str(array.dtype)) for array in flat)
        if key not in made:
            inputs, symbols = openvino_inputs(flat)
            with gaps_told():
                out = call(*tree.pack_sequence_as(arrays, symbols))
            graph = ov.Model([x.output for x in tree.flatten(out)], inputs)
            made[key] = compile_graph(core, graph, options), out
        compiled, out = made[key]
        found = compiled(flat, share_inputs=True)
        return tree.pack_sequence_as(out, [*found.values()])

    return run


def compile_graph(core: ov.Core, graph: ov.Model, options: dict[str, Any]) -> ov.CompiledModel:
    """A graph compiled, or read as it was compiled before."""
    multiply_by_place(graph)
    flatten_places(graph)
    name = name_of(core, graph, options)
    if found := compiled_before(core, name, options):
        return found
    with given_back_meanwhile():  # OpenVINO packs its own copy of the weights
        found = core.compile_model(graph, "CPU", options)
    keep(found, name)
    return found
