"""Precisions: what a weight takes, what is computed in, and how far the numbers move."""

import numpy as np
import pytest

from stable_diffusion_tf import StableDiffusion, UsageError
from stable_diffusion_tf.checkpoint.names import variables
from stable_diffusion_tf.precisions import BYTES, precision
from tests import oracles
from tests.backends import PARTS, run, write_checkpoint
from tests.oracles import ANATOMIES, parting
from tests.tiny import values

NAME = "bk-sdm-tiny"  # the anatomy
ASKED = oracles.inputs(ANATOMIES[NAME])
every_part = pytest.mark.parametrize("part", PARTS)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, StableDiffusion]:
    """One small checkpoint in each precision."""
    folder = write_checkpoint(tmp_path_factory.mktemp(NAME), NAME)
    return {name: StableDiffusion.load(folder, name) for name in BYTES}


def answer(sd: StableDiffusion, part: str) -> np.ndarray:
    return sd.function(part)(*ASKED[part])


@every_part
@pytest.mark.parametrize(
    ("name", "stored", "computed"),
    [
        ("float32", "float32", "float32"),
        ("bfloat16", "bfloat16", "bfloat16"),
        ("float16-storage", "float16", "float32"),
    ],
)
def test_weights_are_kept_in_one_dtype_and_computed_in_one(models, name, stored, computed, part):
    network = models[name].network(part)
    assert {variable.dtype for variable in network.weights} == {stored}
    layers = [layer for layer in network._flatten_layers() if layer.weights]
    assert len(layers) > 10
    assert {layer.compute_dtype for layer in layers} == {computed}
    size = {"float32": 4}.get(stored, 2)
    assert BYTES[name] == size
    held = sum(np.asarray(value).nbytes for value in values(network).values())
    assert held == size * network.count_params()


@every_part
def test_float16_storage_is_float32_with_rounded_weights(models, part):
    """Nothing but the weights is ever rounded; TensorFlow fuses a little less, hence the bound."""
    stored, exact = models["float16-storage"], models["float32"]
    rounded = StableDiffusion(exact.checkpoint)
    full, kept = values(exact.network(part)), values(stored.network(part))
    for name, variable in variables(rounded.network(part)).items():
        half = full[name].astype(np.float16)
        variable.assign(half.astype(np.float32))
        np.testing.assert_array_equal(kept[name], half)
    assert parting(answer(stored, part), answer(rounded, part)) < 1e-5


@every_part
@pytest.mark.parametrize(("name", "tolerance"), [("float16-storage", 1e-2), ("bfloat16", 8e-2)])
def test_half_the_memory_moves_the_numbers_a_little(models, name, tolerance, part):
    exact, made = answer(models["float32"], part), answer(models[name], part)
    assert made.dtype == np.float32 and np.isfinite(made).all()
    assert 0 < parting(made, exact) < tolerance


def test_a_run_in_half_the_memory_ends_near(models):
    ends = {name: run(sd, NAME) for name, sd in models.items()}
    assert 0 < parting(ends["float16-storage"], ends["float32"]) < 1e-2
    assert 0 < parting(ends["bfloat16"], ends["float32"]) < 8e-2


def test_a_network_keeps_its_precision_when_the_policy_is_another(models):
    """It is told when the network is made, not when it is called."""
    with precision("bfloat16"):
        fresh = StableDiffusion(models["float32"].checkpoint)
        assert {v.dtype for v in fresh.network("text_encoder").weights} == {"float32"}


def test_an_unknown_precision_is_one_line():
    with pytest.raises(UsageError) as error:
        StableDiffusion.load("phantom", "float8")
    told = "no precision 'float8'; choose float32, bfloat16, float16-storage"
    assert str(error.value) == told
