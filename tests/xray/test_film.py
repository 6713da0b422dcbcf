"""A film on disk: whole frames, in order, and nothing half written."""

import json

import numpy as np
import pytest
from safetensors import safe_open

from stable_diffusion_tf.pipeline import Step
from xray import film


def step(index: int) -> Step:
    arrays = np.random.default_rng(index).standard_normal((6, 1, 4, 4, 4), dtype=np.float32)
    return Step(index, 900 - index, *arrays)


def test_frames_hold_what_the_step_held(tmp_path):
    film.start_film(tmp_path / "run", {"prompt": "ein Bär"})
    for i in range(2):
        film.add_frame(tmp_path / "run", step(i))
    told = json.loads((tmp_path / "run" / "film.json").read_text(encoding="utf-8"))
    assert told == {"prompt": "ein Bär"}
    with safe_open(tmp_path / "run" / "frames" / "001.safetensors", "numpy") as frame:
        assert frame.metadata() == {"t": "899", "index": "1"}
        for name in film.FIELDS:
            np.testing.assert_array_equal(frame.get_tensor(name), getattr(step(1), name))


def test_a_frame_is_whole_or_not_there(tmp_path, monkeypatch):
    film.start_film(tmp_path / "run", {})
    monkeypatch.setattr(film.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        film.add_frame(tmp_path / "run", step(0))
    assert not list((tmp_path / "run" / "frames").glob("*.safetensors"))


def test_a_film_never_overwrites_another(tmp_path):
    film.start_film(tmp_path / "run", {})
    with pytest.raises(FileExistsError):
        film.start_film(tmp_path / "run", {})
