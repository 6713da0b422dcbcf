"""The fourth backend, in processes of its own: Keras has one for the life of each."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import xray
from stable_diffusion_tf import StableDiffusion, UsageError, backend
from tests import answers_of_openvino as there
from tests.backends import answers_on, golden, told_by, write_checkpoint
from tests.oracles import parting
from xray.methods import textual_inversion

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> dict[str, np.ndarray]:
    """Of a process that has no TensorFlow in it: it sees to that itself."""
    folder = tmp_path_factory.mktemp("openvino")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XRAY_GRAPHS", str(folder / "graphs"))
        return told_by("tests.answers_of_openvino", "openvino", folder / "made.npz")


def test_every_network_answers_like_the_oracle(tmp_path):
    theirs = golden("odd")
    for part, made in answers_on("openvino", write_checkpoint(tmp_path, "odd"), "odd").items():
        assert parting(made, theirs[part.removesuffix(" in chunks")]) < 1e-4, part


def test_the_phantom_draws_as_on_tensorflow(answers, sd):
    image, _ = xray.run(sd, there.PROMPT, **there.RUN)
    assert np.abs(answers["image"][0].astype(int) - image).max() <= 1
    assert answers["taps"].tolist() == [tap.address for tap in xray.taps(sd)]


def test_reading_attention_changes_no_pixel_and_an_edit_does(answers, sd):
    np.testing.assert_array_equal(answers["image"][0], answers["seen"])
    assert not np.array_equal(answers["image"], answers["ablated"])
    np.testing.assert_allclose(answers["attention"].sum(axis=-1), 1, atol=1e-5)
    here = xray.heat_maps(sd, there.PROMPT, **there.RUN)["cat"].array
    np.testing.assert_allclose(answers["map"], here, atol=1e-4)


def test_graphs_that_were_kept_draw_the_same_picture(answers):
    assert answers["graphs"][0] == answers["graphs"][1] > 2  # text encoder, UNet, decoder
    np.testing.assert_array_equal(answers["image"], answers["again"])


def test_weights_in_int8_draw_nearly_the_same_picture(answers, sd):
    off = np.abs(answers["image"].astype(int) - answers["int8"])
    assert 0 < off.mean() < 2
    kernel = answers["kernel"].reshape(len(answers["kernel"]), -1)
    steps = kernel / (np.abs(kernel).max(axis=1, keepdims=True) / 127)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)


def test_int8_is_refused_elsewhere():
    with pytest.raises(
        UsageError, match="int8-storage is OpenVINO's, not tensorflow's; add --back"
    ):
        StableDiffusion.load("phantom", "int8-storage")


def test_an_operation_that_it_lacks_is_a_line(answers):
    told = "`lstsq` is not supported with openvino backend; put KERAS_BACKEND=tensorflow in front"
    assert str(answers["gap"]).startswith(told)


def test_a_script_is_told_the_backend(tmp_path):
    words = ["a cat", "--steps", "2", "--backend", "openvino", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "experiments/text2image.py", *words],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    (folder,) = (tmp_path / "text2image").iterdir()
    said = json.loads((folder / "report.json").read_text("utf-8"))
    assert said["model"]["backend"] == "openvino" == said["options"]["backend"]
    assert said["control"]["passed"] and (folder / "image.png").exists()


def test_it_learns_no_words():
    with pytest.raises(UsageError, match="OpenVINO has no gradients; take --backend tensorflow"):
        textual_inversion.check_word(SimpleNamespace(backend="openvino"), "cat")


def test_versions_that_are_not_tested_are_named():
    with pytest.warns(UserWarning, match=r"keras 3\.99\.0 is not tested .* openvino; 3\.15 is"):
        backend.warn_of_untested({"keras": "3.99.0", "openvino": "2026.4.1"})
