"""Who stands between a network and its caller."""

import keras
import numpy as np
import pytest
from keras import tree

from stable_diffusion_tf import StableDiffusion
from stable_diffusion_tf.compiled import Call, calls_go_through
from tests import tiny
from xray.probe import Edit, Probe
from xray.probe.instrumented import instrument


@pytest.fixture(scope="module")
def sd(tmp_path_factory):
    return StableDiffusion.load(tiny.write_model(tmp_path_factory.mktemp("models") / "tiny"))


GIVEN = np.ones((2, 8, 8, 4), np.float32), 3, np.ones((2, 6, 12), np.float32)


def looked_through(act) -> list[Call]:
    """The calls that `act` makes; all are made."""
    calls = []

    def through(call: Call):
        calls.append(call)
        return call.compute(*call.arrays)

    with calls_go_through(through):
        act()
    return calls


def test_every_call_goes_through_and_what_comes_back_is_taken(sd):
    plain = sd.predict_noise(*GIVEN)
    with calls_go_through(lambda call: call.compute(*call.arrays) + 1):
        np.testing.assert_array_equal(sd.predict_noise(*GIVEN), plain + 1)
    np.testing.assert_array_equal(sd.predict_noise(*GIVEN), plain)


def test_after_an_error_nobody_stands_between(sd):
    with pytest.raises(ZeroDivisionError), calls_go_through(lambda call: 1 // 0):
        sd.predict_noise(*GIVEN)
    assert sd.predict_noise(*GIVEN).shape == GIVEN[0].shape


def instrumented(sd):
    source = {"unet.conv_in": np.zeros((2, 8, 8, 8), np.float32)}
    edits = Edit("unet.conv_in", lambda x, given: x + given, steps=[0], source=source)
    seen = instrument(sd, Probe("unet.*.attn2.probs"), edits)
    return lambda: seen.predict_noise(*GIVEN, step=0)


@pytest.mark.parametrize(
    "act",
    [
        lambda sd: lambda: sd.function("text_encoder")(np.ones((3, 6), np.int32)),
        lambda sd: lambda: sd.predict_noise(*GIVEN),
        lambda sd: lambda: sd.decode_latent(GIVEN[0]),
        lambda sd: lambda: sd.encode_posterior(np.zeros((1, 8, 8, 3), np.uint8)),
        instrumented,
    ],
    ids=["text encoder", "UNet", "decoder", "encoder", "instrument"],
)
def test_the_outline_of_a_call_has_the_shapes_of_what_it_gives_out(act, sd):
    (call,) = looked_through(act(sd))
    specs = tree.map_structure(spec, call.arrays)
    outlined = tree.flatten(tree.map_structure(lambda x: tuple(x.shape), call.outline(*specs)))
    made = tree.flatten(tree.map_structure(np.shape, call.compute(*call.arrays)))
    assert sorted(outlined) == sorted(made) and made


def spec(x: np.ndarray) -> keras.KerasTensor:
    return keras.KerasTensor(x.shape, str(x.dtype))
