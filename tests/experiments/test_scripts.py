"""The scripts as a person runs them: what they save, what they say, what bad input gets."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from experiments import test_image_encoder, text2image
from xray import script

ROOT = Path(__file__).resolve().parents[2]
PHOTO = test_image_encoder.sample()


def only(folder: Path) -> Path:
    """The one entry of a folder."""
    (entry,) = folder.iterdir()
    return entry


def call(main, *words: str, monkeypatch) -> None:
    """Run a script's main as the shell would."""
    monkeypatch.setattr(sys, "argv", ["script.py", *map(str, words)])
    script.run(main)


def spread(path: Path) -> float:
    """How much there is to see: the deviation of a saved picture's values."""
    with Image.open(path) as image:
        return float(np.asarray(image.convert("RGB"), float).std())


def test_text2image_saves_picture_strip_and_tensors(tmp_path, monkeypatch, capfd):
    prompt = "a zebra left of an apple"
    call(text2image.main, prompt, "--steps", 3, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "text2image")
    assert spread(folder / "image.png") > 1 and spread(folder / "strip.png") > 10
    frames = sorted((folder / "frames").iterdir())
    assert [f.name for f in frames] == ["000.safetensors", "001.safetensors", "002.safetensors"]
    first, last = load_file(frames[0]), load_file(frames[-1])
    assert set(first) == {"x", "eps_uncond", "eps_cond", "eps", "x0", "x_prev"}
    assert first["x"].shape == (1, 16, 16, 4) and not np.array_equal(first["x"], last["x"])
    assert json.loads((folder / "film.json").read_text(encoding="utf-8"))["prompt"] == prompt
    said, complained = capfd.readouterr()
    assert complained == "" and "never saw 'zebra'" in said and "3 steps in" in said
    for name in ("image.png", "strip.png", "frames"):
        assert str(folder / name) in said


def test_a_long_prompt_is_told_what_was_cut(tmp_path, monkeypatch, capfd):
    prompt = "cat " * 75 + "dog sun"
    call(text2image.main, prompt, "--steps", 1, "--out", tmp_path, monkeypatch=monkeypatch)
    assert "cut: dog sun" in capfd.readouterr().out


def test_image_encoder_saves_sheet_and_tensors(tmp_path, monkeypatch, capfd):
    call(test_image_encoder.main, "--size", 64, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "test_image_encoder")
    assert spread(folder / "grace_hopper.png") > 10
    arrays = load_file(folder / "grace_hopper.safetensors")
    assert arrays["image"].shape == arrays["round_trip"].shape == (1, 64, 64, 3)
    assert arrays["mean"].shape == arrays["deviation"].shape == (1, 16, 16, 4)
    assert (arrays["deviation"] > 0).all()
    said, complained = capfd.readouterr()
    assert complained == "" and "PSNR" in said and "control" in said


def test_image_encoder_takes_a_folder(tmp_path, monkeypatch, capfd):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("one.png", "two.jpg"):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 90, 3), np.uint8)).save(
            photos / name
        )
    (photos / "notes.txt").write_text("no picture")
    out = tmp_path / "out"
    call(test_image_encoder.main, photos, "--size", 64, "--out", out, monkeypatch=monkeypatch)
    saved = sorted(p.name for p in only(out / "test_image_encoder").iterdir())
    assert saved == ["one.png", "one.safetensors", "two.png", "two.safetensors"]


@pytest.fixture
def bad(tmp_path) -> dict[str, Path]:
    """Things that are not what they are taken for."""
    half = tmp_path / "half.jpg"
    half.write_bytes(PHOTO.read_bytes()[:20000])
    page = tmp_path / "page.png"
    page.write_text("<html>not found</html>")
    empty = tmp_path / "empty"
    empty.mkdir()
    return {"half": half, "page": page, "empty": empty, "file": page, "none": tmp_path / "none"}


@pytest.mark.parametrize(
    "main, words, told",
    [
        (text2image.main, ["a cat", "--steps", "0"], "steps must be from 1 to 1000"),
        (text2image.main, ["a cat", "--steps", "-3"], "steps must be from 1 to 1000"),
        (text2image.main, ["a cat", "--height", "70"], "multiple of 16; try 64"),
        (text2image.main, ["a cat", "--width", "0"], "multiple of 16"),
        (text2image.main, ["a cat", "--guidance", "nan"], "guidance"),
        (text2image.main, ["a cat", "--eta", "2"], "eta"),
        (text2image.main, ["a cat", "--seed", "-1"], "seed"),
        (text2image.main, ["a cat", "--weights", "{none}"], "no weights at"),
        (text2image.main, ["a cat", "--weights", "{empty}"], "no weights at"),
        (text2image.main, ["a cat", "--out", "{file}"], "cannot write into"),
        (test_image_encoder.main, ["{half}"], "cannot read"),
        (test_image_encoder.main, ["{page}"], "cannot read"),
        (test_image_encoder.main, ["{none}"], "there is no"),
        (test_image_encoder.main, ["{empty}"], "no picture in"),
        (test_image_encoder.main, ["--size", "62"], "multiples of 4"),
        (test_image_encoder.main, ["--size", "0"], "size of 0"),
        (test_image_encoder.main, ["--out", "{file}"], "cannot write into"),
    ],
)
def test_bad_input_is_one_line_and_status_2(main, words, told, bad, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(bad["empty"])
    with pytest.raises(SystemExit) as stop:
        call(main, *(w.format(**bad) for w in words), monkeypatch=monkeypatch)
    said, complained = capfd.readouterr()
    assert stop.value.code == 2 and said == ""
    assert told in complained and complained.count("\n") == 1
    assert not any(bad["empty"].iterdir()), "something was written"


def test_two_runs_in_one_second_do_not_meet(tmp_path):
    made = {script.make_folder(tmp_path, "script", "A cat, left!") for _ in range(3)}
    assert len(made) == 3 and all("a-cat-left" in p.name for p in made)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send to one process")
def test_ctrl_c_leaves_whole_frames_and_says_where(tmp_path):
    command = [sys.executable, "experiments/text2image.py", "a cat", "--steps", "1000"]
    command += ["--out", str(tmp_path)]
    run = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("text2image/*/frames/003.safetensors")):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    _, complained = run.communicate(timeout=60)
    folder = only(tmp_path / "text2image")
    assert run.returncode == 130 and complained.strip().endswith(str(folder))
    frames = [p for p in (folder / "frames").iterdir() if p.suffix == ".safetensors"]
    assert len(frames) >= 4 and all(len(load_file(p)) == 6 for p in frames)


@pytest.mark.parametrize("script", ["text2image.py", "test_image_encoder.py"])
def test_help_is_there_without_waiting_for_tensorflow(script):
    watched = f"import sys, runpy; sys.argv = ['{script}', '--help']\n"
    watched += "try: runpy.run_path('experiments/' + sys.argv[0], run_name='__main__')\n"
    watched += "finally: assert 'tensorflow' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", watched], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "--weights" in done.stdout and done.stderr == ""
