"""A film in NumPy's, xarray's and TensorBoard's hands: the same numbers, under the same names."""

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from stable_diffusion_tf.errors import UsageError
from tests.xray import reel
from tests.xray.reel import PROBS, SMALL, WORDS
from xray.film import Film
from xray.film.export import side_by_side
from xray.film.storage import frame_path, write_tensors


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Film:
    return Film.open(reel.write(tmp_path_factory.mktemp("films") / "run", 3))


# --- NumPy -------------------------------------------------------------------------------------


def test_npz_holds_all_of_the_film(film, tmp_path):
    film.to_npz(tmp_path / "film.npz")
    with np.load(tmp_path / "film.npz") as held:
        assert {*film.names, *film.text, "image", "step", "t", "film.json"} == set(held)
        for name in film.names:
            np.testing.assert_array_equal(held[name], film.read(name))
            assert held[name].dtype == np.float32
        for name in film.text:
            np.testing.assert_array_equal(held[name], film.text[name])
        np.testing.assert_array_equal(held["image"], film.image)
        assert held["step"].tolist() == [0, 1, 2] and held["t"].tolist() == [9999, 9998, 9997]
        assert json.loads(str(held["film.json"])) == film.facts


def test_npz_of_a_film_with_a_gap_tells_the_steps(tmp_path):
    folder = reel.write(tmp_path / "run", 3, asked=4)
    frame_path(folder, 1).unlink()
    Film.open(folder).to_npz(tmp_path / "film.npz")
    with np.load(tmp_path / "film.npz") as held:
        assert held["step"].tolist() == [0, 2] and "image" not in held
        np.testing.assert_array_equal(held["x"], [reel.step(i).x for i in (0, 2)])


def test_a_place_that_cannot_be_written_is_told(film, tmp_path):
    with pytest.raises(UsageError, match=r"cannot write .*nowhere"):
        film.to_npz(tmp_path / "nowhere" / "film.npz")


# --- xarray ------------------------------------------------------------------------------------


def test_xarray_finds_values_by_what_they_mean(film):
    data = film.to_xarray()
    assert data[PROBS].dims == ("step", "half", "head", "row", "column", "token")
    cat = data[PROBS].sel(half="cond", token="cat", step=2).isel(head=1, row=3, column=1)
    assert cat == reel.reads(2)[PROBS][1, 1, 3 * reel.SIDE + 1, 2]
    assert data.sel(step=1).t == 9998 and data.token.values.tolist() == WORDS
    assert data.half.values.tolist() == ["uncond", "cond"]
    np.testing.assert_array_equal(data["x0"].values, film.read("x0"))
    np.testing.assert_array_equal(data["image"].values, film.image)
    np.testing.assert_array_equal(data["context"].values, film.text["context"])
    assert data.attrs["prompt"] == "a cat" and data.attrs["steps"] == 3


def test_xarray_tells_apart_axes_of_several_lengths(film):
    data = film.to_xarray()
    assert data["x"].dims == ("step", "prompt", "row", "column", "channel")
    assert data[SMALL].dims == ("step", "half", "head", "row_2", "column_2", "token")
    assert data["unet.conv_in"].dims == ("step", "half", "row", "column", "channel_8")
    assert data["text_encoder.embeddings"].dims == ("prompt_2", "token", "channel_6")
    assert data["unet.mean"].dims == ("step", "axis_0")


def test_xarray_of_some_arrays(film):
    data = film.to_xarray([SMALL, "context"])
    assert set(data.data_vars) == {SMALL, "context", "image"}


# --- TensorBoard -------------------------------------------------------------------------------


def values(folder) -> dict[tuple[str, int], object]:
    """What TensorBoard reads: (tag, step) → value."""
    (place,) = folder.glob("events.out.*")
    events = [*LegacyEventFileLoader(str(place)).Load()]
    return {(value.tag, event.step): value for event in events for value in event.summary.value}


def picture(value) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(value.image.encoded_image_string)))


def test_tensorboard_reads_histograms_and_pictures(film, tmp_path):
    def white(latent):
        return np.ones((1, 5, 7, 3), np.float32)

    film.to_tensorboard(tmp_path / "logs", white)
    held = values(tmp_path / "logs")
    tags = {*film.names, "picture/x0"}
    assert set(held) == {(tag, i) for tag in tags for i in range(3)} | {("picture/image", 2)}
    for i in range(3):
        told, array = held["eps", i].histo, film[i]["eps"].astype(np.float64)
        assert (told.min, told.max, told.num) == (array.min(), array.max(), array.size)
        assert sum(told.bucket) == array.size
        below = array <= told.bucket_limit[29]  # the middle of sixty
        assert sum(told.bucket[:30]) == pytest.approx(below.sum(), abs=1)
        np.testing.assert_allclose([told.sum, told.sum_squares], [array.sum(), (array**2).sum()])
    assert picture(held["picture/x0", 1]).shape == (5, 7, 3)
    assert (picture(held["picture/x0", 1]) == 255).all()
    np.testing.assert_array_equal(picture(held["picture/image", 2]), film.image)


def test_the_projector_gets_the_context_token_by_token(film, tmp_path):
    film.to_tensorboard(tmp_path)
    rows = np.loadtxt(tmp_path / "context.tsv", delimiter="\t")
    np.testing.assert_allclose(rows, film.text["context"][0], rtol=1e-6)
    told = (tmp_path / "tokens.tsv").read_text(encoding="utf-8").splitlines()
    assert told == [f"{i} {word}" for i, word in enumerate(WORDS)]
    config = (tmp_path / "projector_config.pbtxt").read_text(encoding="utf-8")
    assert "context.tsv" in config and "tokens.tsv" in config


def test_channels_side_by_side():
    latent = np.zeros((1, 2, 3, 4), np.float32)
    latent[0, 1, 2, 3] = 3.0  # the last cell of the last channel, white
    shown = side_by_side(latent)
    assert shown.shape == (1, 2, 12, 3) and (shown[0, 1, 11] == 1).all() and shown.sum() == 3


def test_numbers_that_are_none_are_left_out_of_histograms(tmp_path):
    folder = reel.write(tmp_path / "run", 1)
    film = Film.open(folder)
    frame = dict(film[0]) | {"eps": np.array([np.nan, np.inf, 1.0]), "x": np.full(3, np.nan)}
    write_tensors(frame_path(folder, 0), frame, t=1, index=0)
    Film.open(folder).to_tensorboard(tmp_path / "logs")
    held = values(tmp_path / "logs")
    assert held["eps", 0].histo.num == 1 and held["eps", 0].histo.max == 1
    assert held["x", 0].histo.num == 0


@pytest.mark.parametrize(
    ("export", "module", "told"),
    [
        (lambda film, _: film.to_xarray(), "xarray", "pip install xarray"),
        (Film.to_tensorboard, "tensorboard.compat.proto.event_pb2", "pip install tensorboard"),
    ],
)
def test_what_is_not_installed_is_told(film, tmp_path, monkeypatch, export, module, told):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=told):
        export(film, tmp_path)
