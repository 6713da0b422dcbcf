"""The script that compares precisions, in its smallest form, on the backend of the tests."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import test_precision
from stable_diffusion_tf import StableDiffusion
from stable_diffusion_tf.errors import UsageError
from tests import oracles
from tests.experiments.test_scripts import call, check_refusal, only, spread
from tests.golden.make_relatives import GOLDEN
from xray.compare import by_part, compare, inputs_of, reads_of
from xray.report import read_report

SMALLEST = ["a cat", "--pattern", "text_encoder.*.fc1"]
FIRST = "text_encoder.text_model.encoder.layers.0.mlp.fc1"


@pytest.fixture
def alone(monkeypatch) -> None:
    """No other backend is installed, and only the text encoder is asked."""
    monkeypatch.setattr(test_precision, "find_spec", lambda name: None)
    monkeypatch.setattr(
        test_precision.backends,
        "inputs_of",
        lambda sd, prompt, *run: {"text_encoder": (sd.tokenize(prompt),)},
    )


@pytest.mark.arithmetic
@pytest.mark.bfloat16
def test_it_tells_where_each_precision_deviates(alone, tmp_path, monkeypatch, capfd):
    call(test_precision.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "test_precision")
    assert spread(folder / "figure.png") > 10
    report, _ = read_report(folder / "report.json")
    assert report.numbers["bfloat16, first"] == f"first past 0.0001: {FIRST}"
    assert [row["variant"] for row in report.table] == ["bfloat16", "float16-storage"]
    assert report.control.outcome == "all 3 values are equal"
    assert load_file(folder / "tensors.safetensors")["bfloat16"].shape == (3,)
    assert capfd.readouterr().err == ""


def test_the_control_fails_where_float32_differs_from_itself(alone, tmp_path, monkeypatch, capfd):
    see = test_precision.seen_again

    def shaken(*given):
        reads, picture = see(*given)
        return {address: array * (1 + 1e-6) for address, array in reads.items()}, picture

    monkeypatch.setattr(test_precision, "seen_again", shaken)
    with pytest.raises(SystemExit, match="control failed"):
        call(test_precision.main, *SMALLEST, "--out", tmp_path, monkeypatch=monkeypatch)


def test_the_networks_are_asked_about_one_run(sd):
    asked = inputs_of(sd, "a cat", 2, 4.0, 0)
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
    asked = inputs_of(sd, "a cat", 2, 4.0, 0)
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
        (["--weights", "nothing-such"], "not in the catalogue"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    check_refusal(test_precision.main, words, told, tmp_path / "out", monkeypatch, capfd)


def test_the_other_backends_are_those_installed(monkeypatch):
    monkeypatch.setattr(test_precision, "find_spec", lambda name: name in ("jax", "tensorflow"))
    assert test_precision.others_of("tensorflow") == ["jax"]


def test_the_title_names_the_variant_that_deviates_most_and_its_part():
    exact = {"unet.conv_in": np.ones(3), "vae.decoder": np.ones(3)}
    runs = {"a": {"unet.conv_in": 1.25}, "b": {"vae.decoder": 1.002}, "c": {}}
    found = {
        name: compare(exact | {k: np.full(3, v) for k, v in run.items()}, exact)
        for name, run in runs.items()
    }
    assert by_part(found["a"])["UNet down"].difference == 0.25
    title = test_precision.find(found)
    assert title.startswith("a deviates most from float32, by 25 % in the UNet down;")
    assert title.endswith("the others by 0.2 % at most.")
    with pytest.raises(UsageError, match="in common"):
        compare({}, exact)
