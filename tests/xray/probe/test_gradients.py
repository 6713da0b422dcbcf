"""Gradients by values inside the UNet, against finite differences; other backends in parity."""

import numpy as np
import pytest
from keras import ops

from stable_diffusion_tf.errors import UsageError
from tests.xray.slopes import BLOCK, CROSS, PLACES, asked, close, slopes, squares
from xray.probe import Edit
from xray.probe.gradients import gradient
from xray.probe.instrumented import instrument

pytestmark = pytest.mark.arithmetic


@pytest.fixture(scope="module")
def sd(small):
    return small


def test_a_gradient_is_what_finite_differences_say(sd):
    found = slopes(sd, PLACES)
    assert {BLOCK, "x", "context"} < found.keys() and any(
        at.endswith("attn2.probs") for at in found
    )
    assert close(found), found


def test_the_value_and_the_values_are_those_of_a_plain_call(sd):
    arguments, weight = asked(sd)
    told = gradient(sd, squares, [CROSS, "context"])(*arguments, [weight])
    seen = instrument(sd, CROSS)
    noise = seen.predict_noise(*arguments)
    np.testing.assert_allclose(told.value, np.sum(noise**2 * weight), rtol=1e-4)
    for address, value in seen.reads.items():
        np.testing.assert_allclose(told.values[address], value, atol=1e-5)
    np.testing.assert_array_equal(told.values["context"], arguments[2])


def test_pictures_of_a_batch_keep_their_gradients_apart(sd):
    arguments, weight = asked(sd)
    weight[1] = 0
    told = gradient(sd, squares, BLOCK)(*arguments, [weight])
    assert np.abs(told.gradients[BLOCK][0]).max() > 0
    assert np.abs(told.gradients[BLOCK][1]).max() == 0


def test_the_edits_of_an_instrument_act(sd):
    arguments, weight = asked(sd)
    silent = instrument(sd, edits=Edit(CROSS, ops.zeros_like))
    told = gradient(silent, squares, "context")(*arguments, [weight])
    assert np.abs(told.gradients["context"]).max() == 0
    stepwise = instrument(sd, edits=Edit(CROSS, ops.zeros_like, steps=[1]))
    with pytest.raises(UsageError, match="goes by the steps of a run"):
        gradient(stepwise, squares, "context")(*arguments, [weight])


def test_what_cannot_be_asked_is_said(sd, monkeypatch):
    arguments, weight = asked(sd)
    with pytest.raises(UsageError, match=r"no tap matches 'unet.up_blok.0'; .*unet.up_blocks.0"):
        gradient(sd, squares, "unet.up_blok.0")
    with pytest.raises(UsageError, match="no gradient by 'x' was asked for"):
        gradient(sd, squares, BLOCK)(*arguments, [weight], {"x": np.zeros(1)})
    monkeypatch.setattr(type(sd), "backend", "openvino")
    with pytest.raises(UsageError, match="OpenVINO has no gradients; take --backend"):
        gradient(sd, squares, BLOCK)
