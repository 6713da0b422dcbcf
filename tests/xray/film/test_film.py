"""A film on disk: what it holds, read when it is asked for."""

import base64
import io
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from stable_diffusion_tf.errors import UsageError
from tests.xray import reel
from tests.xray.reel import PROBS, drawn, peak
from xray.film import Film
from xray.film.camera import FIELDS, in_order, start_film, write_step
from xray.film.storage import Tensors, write_tensors


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Film:
    return Film.open(reel.write(tmp_path_factory.mktemp("films") / "run", 3))


def test_frames_hold_what_was_written(film):
    assert len(film) == 3 and film.finished and film.state == "3 of 3 steps"
    assert [(frame.index, frame.t) for frame in film] == [(0, 9999), (1, 9998), (2, 9997)]
    for frame, index in zip(film, range(3), strict=True):
        held = {name: getattr(reel.step(index), name) for name in FIELDS} | reel.reads(index)
        assert set(frame) == set(held)
        for name, array in held.items():
            np.testing.assert_array_equal(frame[name], array)


def test_names_come_in_order_of_execution(film):
    assert film.names == ["x", *reel.reads(0), "eps_uncond", "eps_cond", "eps", "x0", "x_prev"]


def test_what_lies_outside_of_the_loop(film):
    assert set(film.text) == set(reel.text()) and dict(film.decoder) == {}
    for name, array in reel.text().items():
        np.testing.assert_array_equal(film.text[name], array)
    np.testing.assert_array_equal(film.image, reel.image())
    assert film.facts["prompt"] == "a cat"


def test_all_steps_of_an_array_or_some(film):
    np.testing.assert_array_equal(film.read("x"), [reel.step(i).x for i in range(3)])
    np.testing.assert_array_equal(film.read(PROBS, [2, 0]), [reel.reads(i)[PROBS] for i in (2, 0)])


def test_axes_have_names(film):
    assert film.dims("x") == ("prompt", "row", "column", "channel")
    assert film.dims(PROBS) == ("half", "head", "query", "token")
    assert film.dims("context") == ("prompt", "token", "channel")
    assert film.dims("unet.mean") == ("axis_0",)


def test_other_programs_read_the_frames(film):
    theirs = load_file(film.folder / "frames" / "001.safetensors")
    assert list(theirs) != [] and set(theirs) == set(film.names)
    np.testing.assert_array_equal(theirs[PROBS], reel.reads(1)[PROBS])


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3, 5)])
def test_arrays_of_any_shape(tmp_path, shape):
    array = drawn(*shape, seed=0)
    write_tensors(tmp_path / "file", {"a": array, "b": np.float64(2), "c": array.T})
    held = Tensors(tmp_path / "file")
    np.testing.assert_array_equal(held["a"], array)
    np.testing.assert_array_equal(held["c"], array.T)
    assert held["a"].shape == held.shape("a") == shape and held["b"] == 2
    assert load_file(tmp_path / "file")["a"].shape == shape


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (lambda film: film[3], "no frame of step 3"),
        (lambda film: film.read("x", [1, 7]), "no frame of step 7"),
        (lambda film: film.read("unet.conv_on"), "unet.conv_in"),
        (lambda film: film.dims("unet.conv_on"), "unet.conv_in"),
        (lambda film: film.read("context"), r"film\.text"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(film, asked, told):
    with pytest.raises(UsageError, match=told):
        asked(film)


def test_the_last_frame(film):
    assert film[-1].index == 2 and film[-3].index == 0


def test_a_folder_without_a_film(tmp_path):
    with pytest.raises(UsageError, match=r"no film\.json"):
        Film.open(tmp_path)


def test_a_film_never_overwrites_another(tmp_path):
    start_film(tmp_path / "run", {"steps": 2})
    start_film(tmp_path / "run", {"steps": 3})  # the run before ended without a frame
    write_step(tmp_path / "run", reel.step(0), in_order(reel.step(0), {}))
    with pytest.raises(UsageError, match="holds a film already"):
        start_film(tmp_path / "run", {"steps": 2})
    assert Film.open(tmp_path / "run").facts["steps"] == 3


def test_a_prompt_in_any_script(tmp_path):
    prompt = "ein Bär 🐻 \udc80"
    start_film(tmp_path / "run", {"prompt": prompt, "steps": np.int64(2)})
    film = Film.open(tmp_path / "run")
    assert film.facts["prompt"] == prompt and film.facts["steps"] == 2 and not film.damaged


def test_arrays_are_read_when_asked_for_and_not_kept(tmp_path):
    large, mb = drawn(2**18, seed=0), 2**20  # 1 MB each
    start_film(tmp_path / "run", {"steps": 8})
    for i in range(8):
        place = tmp_path / "run" / "frames" / f"{i:03d}.safetensors"
        write_tensors(place, {"x": large, "more": large, "most": large}, index=i, t=i)
    assert peak(lambda: Film.open(tmp_path / "run")) < 3 * mb
    film = Film.open(tmp_path / "run")
    assert peak(lambda: [frame["x"].sum() for frame in film]) < 3 * mb
    assert 8 * mb <= peak(lambda: film.read("x")) < 10 * mb
    assert peak(lambda: film.to_npz(tmp_path / "run.npz")) < 4 * mb


def test_reading_a_film_does_without_keras():
    code = "import sys, xray.film; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- what people type --------------------------------------------------------------------------


def test_a_film_by_name_by_step_and_by_steps(film):
    np.testing.assert_array_equal(film["x0"], film.read("x0"))
    np.testing.assert_array_equal(film["context"], film.text["context"])
    assert [frame.index for frame in film[1:3]] == [1, 2] and film[np.int64(1)].index == 1
    assert [frame.index for frame in film[-2:]] == [1, 2] and film[7:] == []
    assert "x0" in film and "context" in film and "x9" not in film


@pytest.mark.parametrize("key", [1.5, None, (0, 1)])
def test_another_key_is_told_what_there_is(film, key):
    with pytest.raises(UsageError, match=r'film\[3\].*film\[2:4\].*film\["x0"\]'):
        film[key]


def test_a_name_that_is_not_there_is_told_with_what_is(film):
    with pytest.raises(UsageError, match=r"holds no 'unet\.conv_on'; .* unet\.conv_in"):
        film["unet.conv_on"]
    with pytest.raises(UsageError, match="holds no 'x9'; it holds x, "):
        film[0]["x9"]
    assert film[0].get("x9") is None


def test_a_film_in_one_line(film, tmp_path):
    assert repr(film) == f"<Film {film.folder}: 'a cat', 3 of 3 steps>"
    start_film(tmp_path / "run", {"prompt": "a\n\x1b[31m" * 99, "steps": 2})
    told = repr(Film.open(tmp_path / "run"))
    assert told.isprintable() and len(told) < 220


def test_a_film_in_a_notebook(film, tmp_path):
    shown = film._repr_html_().partition("<iframe ")[0]  # the page in it: test_page.py
    (held,) = re.findall(r'src="data:image/png;base64,([^"]+)"', shown)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(held))))
    np.testing.assert_array_equal(picture, film.image)
    assert "3 of 3 steps" in shown and "http" not in shown and len(shown) < 5000
    start_film(tmp_path / "run", {"prompt": "<script>alert(1)</script>" + "a" * 999, "steps": 2})
    shown = Film.open(tmp_path / "run")._repr_html_()
    assert "<script" not in shown and "&lt;script" in shown and len(shown) < 1500
