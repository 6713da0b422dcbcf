"""The script that compares precisions, in its smallest form, on the backend of the tests."""

import json

import numpy as np
import pytest

from experiments import test_precision
from stable_diffusion_tf import StableDiffusion
from stable_diffusion_tf.errors import UsageError
from tests import oracles
from tests.experiments.test_scripts import call, check_refusal, only, spread
from tests.golden.make_relatives import GOLDEN
from xray.compare import BACKENDS, by_part, compare, reads_of

SMALLEST = ["a cat", "--pattern", "text_encoder.*.fc1"]
FIRST = "text_encoder.text_model.encoder.layers.0.mlp.fc1"


@pytest.fixture
def alone(monkeypatch) -> None:
    """No other backend is installed, and only the text encoder is asked."""
    monkeypatch.setattr(test_precision, "find_spec", lambda name: None)
    monkeypatch.setattr(
        test_precision,
        "find_inputs",
        lambda sd, prompt, *_: {"text_encoder": (sd.tokenize(prompt),)},
    )


@pytest.mark.arithmetic
@pytest.mark.bfloat16
def test_it_tells_where_each_precision_parts(alone, tmp_path, monkeypatch, capfd):
    call(test_precision.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "test_precision")
    assert sorted(p.name for p in folder.iterdir()) == [
        "bfloat16.txt",
        "float16-storage.txt",
        "parting.png",
    ]
    table = (folder / "bfloat16.txt").read_text(encoding="utf-8")
    assert table.splitlines()[-1] == f"first past 0.0001: {FIRST}"
    assert spread(folder / "parting.png") > 10
    said, complained = capfd.readouterr()
    assert complained == "" and "float32 again: all 3 values are equal" in said
    assert "float16-storage: 3 values" in said and str(folder / "parting.png") in said


def test_the_control_fails_where_float32_differs_from_itself(alone, tmp_path, monkeypatch, capfd):
    read = test_precision.reads_again

    def shaken(*given):
        return {address: array * (1 + 1e-6) for address, array in read(*given).items()}

    monkeypatch.setattr(test_precision, "reads_again", shaken)
    with pytest.raises(SystemExit, match="control failed"):
        call(test_precision.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)


def test_the_networks_are_asked_about_one_run(sd):
    asked = test_precision.find_inputs(sd, "a cat", 2, 4.0, 0)
    context, uncond = np.split(sd.encode_text(["a cat", ""]), 2)
    _, half = sd.denoise(context, uncond, 2, 4.0)
    latents, times, contexts = asked["unet"]
    np.testing.assert_array_equal(latents, np.concatenate([half.x, half.x]))
    np.testing.assert_array_equal(contexts, np.concatenate([uncond, context]))
    assert times.tolist() == [half.t] * 2
    scaled = asked["decoder"][0] * np.float32(sd.vae_config.scaling_factor)
    np.testing.assert_allclose(scaled, half.x_prev, rtol=1e-6)


def test_a_latent_consistency_model_is_asked_with_its_guidance(tmp_path):
    with np.load(GOLDEN) as found:
        oracles.write(tmp_path, oracles.LCM, json.loads(str(found["lcm/names"])))
    sd = StableDiffusion.load(tmp_path)
    asked = test_precision.find_inputs(sd, "a cat", 2, 4.0, 0)
    latents, times, contexts, guidance = asked["unet"]
    reads = reads_of(sd, {"unet": asked["unet"]}, "unet")
    expected = sd.predict_noise(latents, times, contexts, guidance=4.0)
    np.testing.assert_array_equal(reads["unet"], expected)
    assert guidance.shape == (2, 24)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--tolerance", "0"], "tolerance of 0.0 is not above 0"),
        (["--pattern", "unet.nothing", "--steps", "1"], "no tap matches"),
        (["--steps", "0"], "steps must be from 1 to 1000"),
        (["--weights", "nothing-such"], "not in the catalogue"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    check_refusal(test_precision.main, words, told, tmp_path / "out", monkeypatch, capfd)


def test_the_other_backends_are_tried_where_they_are_installed(monkeypatch):
    tried = []
    monkeypatch.setattr(test_precision, "find_spec", lambda name: name != "torch")
    monkeypatch.setattr(test_precision, "reads_on", lambda *given, **_: tried.append(given))
    found = test_precision.variants("tensorflow", "phantom", {}, "*")
    assert list(found) == ["bfloat16", "float16-storage", BACKENDS["jax"]]
    found["JAX"]()
    assert tried == [("jax", {}, "phantom")]


def test_the_title_names_the_variant_that_parts_furthest_and_its_part():
    exact = {"unet.conv_in": np.ones(3), "vae.decoder": np.ones(3)}
    runs = {"a": {"unet.conv_in": 1.25}, "b": {"vae.decoder": 1.002}, "c": {}}
    found = {
        name: compare(exact | {k: np.full(3, v) for k, v in run.items()}, exact)
        for name, run in runs.items()
    }
    assert by_part(found["a"])["UNet down"].difference == 0.25
    title = test_precision.finding(found)
    assert title.startswith("a parts furthest from float32, by 25.0 % (UNet down)")
    assert title.endswith("the others by 0.2 % at most")
    with pytest.raises(UsageError, match="in common"):
        compare({}, exact)
