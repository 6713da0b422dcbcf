"""The Keras ports and ours: the same weights, through files and live, and the same numbers.

keras-cv's own classes, narrow, write the files of both layouts. The seed's are restated, and Keras
itself writes them, so that in both cases the order of the weights is Keras' and not ours. What
comes out tells whether each weight came to its place; so the ports' wrong numbers (ε, GELU) are
put right first. Run with `-s` to see how far apart they are.
"""

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format

from stable_diffusion_tf import StableDiffusion
from stable_diffusion_tf.unet import timestep_embedding
from tests import keras_cv_models, seed_model
from tests.oracles import parting, random_array
from xray.probe import Edit, Probe, capture

pytestmark = pytest.mark.parity

TOLERANCE = 1e-4
CELLS = 16
SCALE = 0.18215

latent = random_array(2, CELLS, CELLS, 4)
context = random_array(2, 77, 128, seed=1)
images = np.tanh(random_array(2, 8 * CELLS, 8 * CELLS, 3, seed=2))
ids = np.random.RandomState(3).randint(500, size=(2, 77)).astype(np.int32)
positions = np.tile(np.arange(77, dtype=np.int32), (2, 1))
times = np.array([981, 20], np.int32)
ASKED = {
    "text_encoder": (ids,),
    "unet": (latent, times, context),
    "encoder": (images,),
    "decoder": (latent,),
}


def scramble(network: keras.Model, seed: int) -> keras.Model:
    """No two weights alike, biases and norms too, and the outputs of order one."""
    rng = np.random.default_rng(seed)
    for variable in network.weights:
        value = rng.standard_normal(variable.shape, dtype=np.float32)
        inputs = np.prod(variable.shape[:-1]) if variable.path.endswith("kernel") else 10
        variable.assign(value / inputs**0.5 + variable.path.endswith("gamma"))
    return network


def time_embedding(width: int) -> np.ndarray:
    return keras.ops.convert_to_numpy(timestep_embedding(times, width))


def array(answer: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(answer)


# --- the ports ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keras_cv() -> SimpleNamespace:
    """The networks by keras-cv's names, and what they answer to what ours are asked."""
    models = keras_cv_models.models(8 * CELLS)
    networks = {
        name: scramble(network, i) for i, (name, network) in enumerate(vars(models).items())
    }
    keras_cv_models.put_right(models)
    moments = images
    for layer in models.image_encoder.layers[:-1]:  # the last keeps the mean only
        moments = layer(moments)
    asked = [latent, time_embedding(32), context]
    answers = {
        "text_encoder": array(models.text_encoder([ids, positions])),
        "unet": array(models.diffusion_model(asked)),
        "encoder": array(moments),
        "decoder": array(models.decoder(latent * SCALE)),
    }
    return SimpleNamespace(networks=networks, answers=answers)


def test_their_own_layers_are_tapped(keras_cv):
    """As docs/any-model.md shows it: their model, unchanged, under their names."""
    unet = keras_cv.networks["diffusion_model"]
    asked = {"latent": latent, "timestep_embedding": time_embedding(32), "context": context}
    out, values = capture(unet, asked, [Probe("*.spatial_transformer*")])
    np.testing.assert_array_equal(out, array(unet.predict_on_batch(asked)))
    blocks = [address for address in values if address.count(".") == 1]
    assert len(blocks) == 16 and len(values) > 100
    silenced, _ = capture(unet, asked, edits=[Edit(blocks[0], lambda x: x * 0)])
    assert parting(silenced, out) > 1e-3


@pytest.fixture(scope="module")
def seed() -> SimpleNamespace:
    models = seed_model.models(cells=CELLS)
    networks = {name: scramble(network, i) for i, (name, network) in enumerate(models.items())}
    asked = {
        "text_encoder": [ids, positions],
        "unet": [latent, time_embedding(32), context],
        "encoder": images,
        "decoder": latent,
    }
    answers = {name: array(network(asked[name])) for name, network in networks.items()}
    return SimpleNamespace(networks=networks, answers=answers)


def write_keras2(networks: Iterable[keras.Model], folder: Path) -> None:
    """By what Keras 3 has kept of Keras 2."""
    for i, network in enumerate(networks):
        with h5py.File(folder / f"{i}.h5", "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, network)


def write_keras3(networks: Iterable[keras.Model], folder: Path) -> None:
    for i, network in enumerate(networks):
        network.save_weights(folder / f"{i}.weights.h5")


# --- ours ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["keras-cv, keras 2", "keras-cv, keras 3", "live", "seed"])
def case(request, tmp_path_factory) -> SimpleNamespace:
    """A port, and our model that took its weights in one form."""
    folder = tmp_path_factory.mktemp("quartet")
    port = request.getfixturevalue("seed" if request.param == "seed" else "keras_cv")
    if request.param == "live":
        return SimpleNamespace(port=port, ours=StableDiffusion.from_keras_cv(whole(port.networks)))
    write = write_keras3 if request.param.endswith("keras 3") else write_keras2
    write(port.networks.values(), folder)
    return SimpleNamespace(port=port, ours=StableDiffusion.load(folder))


def whole(networks: dict[str, keras.Model]) -> Any:
    """keras-cv's own StableDiffusion around the networks."""
    model = keras_cv_models.module("stable_diffusion").StableDiffusion(128, 128, jit_compile=False)
    for name, network in networks.items():
        setattr(model, f"_{name}", network)
    return model


@pytest.mark.parametrize("part", ASKED)
def test_our_network_with_the_ports_weights_answers_like_the_port(case, part, record_property):
    theirs = case.port.answers[part]
    error = parting(case.ours.function(part)(*ASKED[part]), theirs)
    record_property("parting", error)
    print(f"\n{part}: {error:.1e}")
    assert np.std(theirs) > 0.1  # there is something to compare
    assert error < TOLERANCE


def test_every_weight_of_the_port_is_in_ours_bit_by_bit(case):
    """Whatever the order of its axes: told by its values alone, which no two have in common."""
    ours = [told(w) for part in ASKED for w in case.ours.network(part).weights]
    theirs = [told(w) for network in case.port.networks.values() for w in network.weights]
    assert len(set(theirs)) == len(theirs)
    assert sorted(ours) == sorted(theirs)


def told(weight: keras.Variable) -> bytes:
    return sha256(np.sort(array(weight), axis=None)).digest()
