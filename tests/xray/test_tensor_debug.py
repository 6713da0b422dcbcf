"""DebugTensor: what it says of itself is true, and no operation changes anything."""

import base64
import io
import re
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, scalar_dtypes
from PIL import Image
from safetensors.numpy import save_file

from stable_diffusion_tf import scheduler
from stable_diffusion_tf.errors import UsageError
from xray import measure
from xray.tensor_debug import SHOWN, SPACES, DebugTensor, bars, lerp, plain_bytes, slerp

NAN, INF = float("nan"), float("inf")
RNG = np.random.default_rng(0)
LATENT = DebugTensor(RNG.standard_normal((2, 8, 8, 4), dtype=np.float32), "x", "latent", step=3)
ALPHAS = scheduler.alphas_cumprod()

patient = settings(deadline=None, max_examples=50)  # a busy machine is no failure


def test_it_is_numpy_only():
    heavy = "{'keras', 'tensorflow', 'matplotlib'}"
    code = f"import xray.tensor_debug, sys; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- immutable -----------------------------------------------------------------------------------

OPERATIONS = {
    "tile": lambda x: x.tile(slice(0, 3), slice(4, 6)),
    "mask": lambda x: x.mask(np.eye(8, dtype=bool)),
    "replace": lambda x: x.replace(np.eye(8, dtype=bool), 5.0),
    "mix": lambda x: x.mix(np.ones_like(x.array), 0.5),
    "corrupt": lambda x: x.corrupt(0.5),
    "sample": lambda x: x.sample(),
    "shuffle": lambda x: x.shuffle(),
    "as_image": lambda x: x.as_image(),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_makes_a_new_one(name):
    before = LATENT.array.copy()
    made = OPERATIONS[name](LATENT)
    np.testing.assert_array_equal(LATENT.array, before)
    assert not np.array_equal(made.array, before)
    assert not made.array.flags.writeable and made.array.dtype == np.float32
    assert (made.name, made.step) == (f"{name}(x)", 3)
    assert made.dims == ("batch", "row", "column", "channel")


def test_the_array_handed_in_stays_the_callers():
    mine = np.zeros(3)
    x = DebugTensor(mine)
    mine[0] = 1
    assert x.array[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        x.array[0] = 2
    with pytest.raises(AttributeError):
        x.array = mine


def test_numpy_takes_it():
    np.testing.assert_array_equal(np.asarray(LATENT), LATENT.array)
    np.testing.assert_array_equal(np.add(LATENT, 1), LATENT.array + 1)
    assert np.asarray(LATENT, np.float64).dtype == np.float64
    mine = np.array(LATENT)
    mine[:] = 0
    assert LATENT.array.any()


@pytest.mark.parametrize(
    "space, shape, dims",
    [
        ("latent", (8, 8, 4), ("row", "column", "channel")),
        ("text", (1, 77, 16), ("prompt", "token", "channel")),
        ("attention", (8, 8), ()),
        ("noise", (4,), ()),
    ],
)
def test_a_space_names_its_dimensions(space, shape, dims):
    assert DebugTensor(np.zeros(shape), "x", space).dims == dims


@pytest.mark.parametrize(
    "array, space, dims, told",
    [
        (["a"], "other", (), "holds <U1"),
        ([1j], "other", (), "holds complex128"),
        ([1], "laten", (), "no space 'laten'; choose latent, pixels"),
        ([1], "other", ("row", "column"), r"\(1,\).*row"),
    ],
)
def test_what_it_cannot_be_is_told(array, space, dims, told):
    with pytest.raises(UsageError, match=told):
        DebugTensor(array, "x", space, dims)


# --- one line ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array, line",
    [
        (
            np.array([[-1, 0], [0, 3]], np.float32),
            "x (2, 2) float32 · other · 0.5 ± 1.5 · -1 … 3 · 2 zeros · 16 bytes · |▄  █       ▄|",
        ),
        (
            np.array([1, NAN, 3, INF, -INF]),
            "x (5,) float64 · other · 2 ± 1 · 1 … 3 · 1 NaN, 2 inf · 40 bytes · |█          █|",
        ),
        (
            np.full(3, 7, np.int64),
            "x (3,) int64 · other · 7 ± 0 · 7 … 7 · 24 bytes · |      █     |",
        ),
        (
            np.array([True, False, True, True]),
            "x (4,) bool · other · 0.75 ± 0.433 · 0 … 1 · 1 zeros · 4 bytes · |▃          █|",
        ),
        (
            np.array([320, 49407], np.int32),
            "x (2,) int32 · other · 2.49e+04 ± 2.45e+04 · 320 … 49407 · 8 bytes · |█          █|",
        ),
        (np.zeros((0, 4)), "x (0, 4) float64 · other · – ± – · – … – · 0 bytes"),
        (np.array(NAN), "x () float64 · other · – ± – · – … – · 1 NaN · 8 bytes"),
    ],
)
def test_the_line(array, line):
    assert repr(DebugTensor(array, "x")) == line


def test_the_line_names_the_step_and_the_space():
    assert repr(LATENT).startswith("x (2, 8, 8, 4) float32 · latent · step 3 · ")
    assert repr(LATENT.shuffle()).endswith(bars(LATENT.array))


@patient
@given(scalar_dtypes().flatmap(lambda d: arrays(d, array_shapes(min_dims=0, min_side=0))))
def test_every_array_of_numbers_has_a_line(array):
    """Subnormals, the largest floats, integers of any width, NaN anywhere."""
    if array.dtype.kind not in "biuf":
        return
    line = repr(DebugTensor(array, "two\nlines"))
    assert "\n" not in line and line.startswith(f"two lines {array.shape} {array.dtype} · ")


@pytest.mark.parametrize(
    "values, drawn",
    [
        (np.arange(12), "|████████████|"),
        ([0] * 8 + [1], "|█          ▁|"),
        ([0] * 800 + [1], "|█          ▁|"),  # however few, they are seen
        ([1e308, -1e308], "|█          █|"),
        ([1.0, np.nextafter(1.0, 2)], "|█          █|"),
        ([INF], ""),
    ],
)
def test_the_histogram(values, drawn):
    assert bars(np.array(values)) == drawn


@pytest.mark.parametrize(
    "count, plain",
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (65536, "65.5 kB"),
        (10**6, "1.0 MB"),
        (3_440_000_000, "3.4 GB"),
        (10**16, "10000.0 TB"),
    ],
)
def test_bytes_in_plain_units(count, plain):
    assert plain_bytes(count) == plain


def test_memory_in_all_and_by_dimension():
    dims = ("half", "head", "query", "token")
    maps = DebugTensor(np.zeros((2, 8, 64, 77), np.float32), "probs", "attention", dims)
    assert maps.memory() == (
        "315.4 kB, 4 bytes a value = half 2 × 157.7 kB = head 8 × 39.4 kB = query 64 × 4.9 kB"
        " = token 77 × 4.1 kB"
    )
    assert DebugTensor(np.zeros((0, 2))).memory() == (
        "0 bytes, 8 bytes a value = axis 0 0 × 0 bytes = axis 1 2 × 0 bytes"
    )


# --- what it is ----------------------------------------------------------------------------------


def test_normality_is_that_of_all_its_values():
    assert LATENT.normality() == measure.normality(LATENT.array)


def test_the_spectrum_is_that_of_each_map():
    found = LATENT.spectrum()
    assert found.power.shape == (len(found.frequency), 2 * 4)
    expected = measure.spectrum(LATENT.array[1, :, :, 2]).power
    np.testing.assert_allclose(found.power[:, 1 * 4 + 2], expected)


@pytest.mark.parametrize("t", [1, 500, 981])
def test_the_snr_of_a_noised_latent_is_the_schedules(t):
    clean, noise = RNG.standard_normal((2, 1, 64, 64, 4))
    x = DebugTensor(scheduler.add_noise(clean, noise, t, ALPHAS), "x", "latent")
    measured, scheduled = x.snr(clean, t, ALPHAS)
    assert scheduled == pytest.approx(10 * np.log10(ALPHAS[t] / (1 - ALPHAS[t])))
    assert measured == pytest.approx(scheduled, abs=0.3)
    louder = DebugTensor(scheduler.add_noise(clean, 10 * noise, t, ALPHAS), "x", "latent")
    assert louder.snr(clean, t, ALPHAS)[0] == pytest.approx(measured - 20)


def test_the_snr_without_noise_is_infinite():
    clean = RNG.standard_normal((1, 4, 4, 4))
    x = DebugTensor(scheduler.add_noise(clean, 0.0, 500, ALPHAS), "x", "latent")
    assert x.snr(clean, 500, ALPHAS)[0] == INF


@pytest.mark.parametrize(
    "a, b, largest, relative, where",
    [
        ([[1, 2], [3, 4]], [[1, 2], [3, 4]], 0, 0, (0, 0)),
        ([[1, 2], [3, 4]], [[1, 2], [1, 5]], 2, 2 / 5, (1, 0)),
        ([1, NAN, 3], [1, NAN, 5], 2, 2 / 5, (2,)),
        ([1, 9, NAN], [1, 2, 3], INF, INF, (2,)),
    ],
)
def test_diff(a, b, largest, relative, where):
    found = DebugTensor(a).diff(DebugTensor(b))
    assert (found.largest, found.relative, found.where) == (largest, relative, where)


def test_diff_tells_the_angle():
    assert DebugTensor([1.0, 1.0]).diff([1, 0]).cosine == pytest.approx(2**-0.5)


@pytest.mark.parametrize(
    "compare",
    [
        lambda x, y: x.diff(y),
        lambda x, y: x.mix(y, 0.5),
        lambda x, y: x.snr(y, 1, ALPHAS),
    ],
)
def test_a_partner_has_the_same_shape(compare):
    with pytest.raises(UsageError, match=r"x is \(2, 8, 8, 4\), the other \(8, 8, 4\)"):
        compare(LATENT, LATENT.array[0])


def test_nothing_has_no_difference():
    with pytest.raises(UsageError, match="empty"):
        DebugTensor([]).diff([])


# --- another one made of it ----------------------------------------------------------------------

COUNT = np.arange(20).reshape(4, 5)


def test_a_patch_is_repeated_and_cut_at_the_edge():
    tiled = DebugTensor(COUNT).tile(slice(1, 3), slice(2, 4)).array
    np.testing.assert_array_equal(tiled, [[7, 8, 7, 8, 7], [12, 13, 12, 13, 12]] * 2)


def test_a_patch_has_all_channels_of_all_pictures():
    x = np.moveaxis(np.stack([np.stack([COUNT, -COUNT])] * 3), 1, -1)  # (3, 4, 5, 2)
    tiled = DebugTensor(x, "x", "latent").tile(slice(0, 1), slice(0, 2)).array
    np.testing.assert_array_equal(tiled[2, :, :, 1], [[0, -1, 0, -1, 0]] * 4)


@pytest.mark.parametrize(
    "x, told", [(COUNT, "nothing of 4 positions"), ([1, 2], "rows and columns")]
)
def test_a_patch_has_cells(x, told):
    with pytest.raises(UsageError, match=told):
        DebugTensor(x).tile(slice(9, None), slice(None))


def test_a_mask_keeps_what_it_covers():
    image = np.zeros((16, 16), bool)  # two pixels to a cell
    image[4:8, :7] = True  # the fourth column is half covered, and half is not more than half
    kept = LATENT.mask(image).array
    np.testing.assert_array_equal(kept[:, 2:4, :3], LATENT.array[:, 2:4, :3])
    assert np.count_nonzero(kept) == 2 * 2 * 3 * 4


def test_replacing_is_masking_the_rest():
    image = RNG.random((8, 8)) < 0.5
    other = DebugTensor(np.ones_like(LATENT.array))
    a, b = LATENT.replace(image, other), LATENT.mask(~image, outside=other)
    np.testing.assert_array_equal(a.array, b.array)
    np.testing.assert_array_equal(a.array[:, image], 1)


def test_a_mask_finds_the_rows_and_columns_by_name():
    dims = ("column", "head", "row")
    image = np.array([[True, False, False], [True, True, False]])  # two rows, three columns
    x = DebugTensor(np.ones((3, 4, 2)), "x", "attention", dims)
    np.testing.assert_array_equal(x.mask(image).array[:, 1], image.T)


@pytest.mark.parametrize("path", [lerp, slerp])
def test_a_mix_begins_and_ends_at_the_two(path):
    other = RNG.standard_normal(LATENT.array.shape)
    np.testing.assert_allclose(LATENT.mix(other, 0, path).array, LATENT.array, atol=1e-12)
    np.testing.assert_allclose(LATENT.mix(other, 1, path).array, other, atol=1e-12)


@pytest.mark.parametrize(
    "path, a, b, share, expected",
    [
        (lerp, [0, 8], [4, 0], 0.25, [1, 6]),
        (lerp, [200, 255], [255, 200], 0.5, [227.5, 227.5]),
        (slerp, [1, 0], [0, 1], 1 / 3, [3**0.5 / 2, 1 / 2]),
        (slerp, [2, 0], [4, 0], 0.5, [3, 0]),  # no angle: the straight way
    ],
)
def test_the_way_from_one_to_another(path, a, b, share, expected):
    for dtype in (np.uint8, np.float64):
        found = DebugTensor(np.array(a, dtype)).mix(np.array(b, dtype), share, path)
        np.testing.assert_allclose(found.array, expected)


@patient
@given(st.integers(0, 99), st.floats(0, 1))
def test_slerp_keeps_the_length(seed, share):
    a, b = np.random.default_rng(seed).standard_normal((2, 30))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    assert np.linalg.norm(slerp(a, b, share)) == pytest.approx(1)


@pytest.mark.parametrize("b, told", [([-1.0, 0], "opposite"), ([0.0, 0], "no angle")])
def test_slerp_says_where_it_cannot_turn(b, told):
    with pytest.raises(UsageError, match=told):
        slerp(np.array([1.0, 0]), np.array(b), 0.5)


@pytest.mark.parametrize("share", [0, 0.25, 1])
def test_corruption_replaces_whole_cells(share):
    found = LATENT.corrupt(share, amplitude=3.0)
    changed = found.array != LATENT.array
    assert (changed.all(-1) == changed.any(-1)).all()
    assert changed[..., 0].sum() == share * 2 * 8 * 8


def test_where_there_are_no_channels_a_cell_is_a_value():
    found = DebugTensor(np.zeros((10, 10)), "x", "attention").corrupt(0.3)
    assert np.count_nonzero(found.array) == 30


def test_noise_has_its_amplitude():
    flat = DebugTensor(np.zeros((100, 100)))
    noise = flat.corrupt(1, amplitude=3.0).array
    assert noise.mean() == pytest.approx(0, abs=0.1) and noise.std() == pytest.approx(3, rel=0.05)
    assert not flat.corrupt(1, amplitude=0.0).array.any()


def test_a_share_is_from_0_to_1():
    for share in (-0.1, 1.1, NAN):
        with pytest.raises(UsageError, match=f"share of {share}"):
            LATENT.corrupt(share)


def test_a_sample_has_the_mean_and_the_deviation():
    x = DebugTensor(np.concatenate([RNG.normal(5, 2, 40_000), [NAN, INF]]), "x")
    found = x.sample(rng=1).array
    assert found.mean() == pytest.approx(5, abs=0.05)
    assert found.std() == pytest.approx(2, abs=0.05)
    assert DebugTensor(np.arange(5)).sample().array.dtype == np.float32
    with pytest.raises(UsageError, match="finite"):
        DebugTensor([NAN]).sample()


def test_shuffled_values_are_the_same_values():
    np.testing.assert_array_equal(np.sort(LATENT.shuffle(), axis=None), np.sort(LATENT, axis=None))


@pytest.mark.parametrize("draw", ["sample", "shuffle", "corrupt"])
def test_chance_comes_from_a_seed_or_an_rng(draw):
    def drawn(rng):
        return getattr(LATENT, draw)(**({"share": 0.5} if draw == "corrupt" else {}), rng=rng).array

    np.testing.assert_array_equal(drawn(7), drawn(np.random.default_rng(7)))
    assert not np.array_equal(drawn(7), drawn(8))


# --- to look at ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "space, array, pixel",
    [
        ("latent", np.full((1, 1, 4), 0.5), [0.0715, 0.2055, 0.086]),  # half the sum of the rows
        ("latent", np.full((1, 1, 4), 20.0), [1, 1, 1]),
        ("pixels", np.array([[[0, 255, 51]]], np.uint8), [-1, 1, -0.6]),
        ("pixels", np.array([[[-2, 0.5, 2]]]), [-1, 0.5, 1]),
        ("attention", np.array([[0.1, 0.4]]), [-0.5] * 3),
        ("attention", np.zeros((2, 2)), [-1] * 3),
        ("noise", np.array([[[-1.0], [4.0]]]), [-0.25] * 3),
        ("text", np.array([[[3, -4]]]), [0.75] * 3),
        ("other", np.array([[True, False]]), [1] * 3),
        ("latent", np.array([[[NAN, 0, 0, 0]]]), [1, -1, 1]),
        ("noise", np.array([[[INF], [1.0]]]), [1, -1, 1]),
        ("pixels", np.array([[[1e300, 0, 0]]]), [1, -1, 1]),
    ],
)
def test_the_first_pixel_of_a_picture(space, array, pixel):
    image = DebugTensor(array, "x", space).as_image()
    np.testing.assert_allclose(image.array[0, 0, 0], pixel, atol=1e-6)
    assert image.space == "pixels" and image.array.dtype == np.float32


def test_each_map_is_a_picture_on_its_own_scale():
    maps = np.stack([COUNT, 10.0 * COUNT])
    image = DebugTensor(maps, "x", "attention").as_image().array
    assert image.shape == (2, 4, 5, 3)
    np.testing.assert_allclose(image[0], image[1], atol=1e-6)


def test_noise_is_a_picture_for_each_channel():
    noise = DebugTensor(RNG.standard_normal((2, 8, 8, 4)), "eps", "noise")
    image = noise.as_image().array
    largest = np.abs(noise.array[1, :, :, 2]).max()
    np.testing.assert_allclose(image[6, ..., 0], noise.array[1, :, :, 2] / largest, atol=1e-6)


def test_a_picture_by_a_function_that_is_handed_in():
    seen = []

    def decode(latents):
        seen.append(latents)
        return np.zeros((len(latents), 64, 64, 3))

    assert DebugTensor(LATENT.array[0], "x", "latent").as_image(decode).array.shape[1:3] == (64, 64)
    np.testing.assert_array_equal(seen[0], LATENT.array[:1])
    matrix = np.zeros((4, 3))
    flat = LATENT.as_image(partial(measure.linear_rgb, matrix=matrix, bias=0.5)).array
    np.testing.assert_array_equal(flat, np.full((2, 8, 8, 3), 0.5))


@pytest.mark.parametrize(
    "space, shape, told",
    [
        ("latent", (8, 8, 5), "takes 4 channels, and here are 5"),
        ("latent", (8, 8), r"\(8, 8\); latent is"),
        ("pixels", (8, 8, 1), "another to_rgb"),
        ("attention", (8,), "no rows and columns"),
    ],
)
def test_what_is_no_picture_is_told(space, shape, told):
    x = DebugTensor(np.zeros(shape), "x", space)
    with pytest.raises(UsageError, match=told):
        x.as_image()
    assert x._repr_png_() is None
    assert "<img" not in x._repr_html_()


def test_a_notebook_shows_the_line_a_table_and_the_picture():
    x = DebugTensor(LATENT.array, "a <b>", "latent")
    shown = x._repr_html_()
    assert "a &lt;b&gt; (2, 8, 8, 4)" in shown and "<b>" not in shown
    assert "<th>dimensions</th><td>batch, row, column, channel</td>" in shown
    assert "<th>mean</th>" in shown and f"<td>{x.memory()}</td>" in shown
    png = base64.b64decode(re.search(r'src="data:image/png;base64,([^"]+)"', shown)[1])
    assert png == x._repr_png_()
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    assert np.asarray(picture).std() > 1  # something is drawn


def test_a_notebook_shows_the_first_of_many_maps():
    few, many = (DebugTensor(np.ones((n, 4, 4)), "x", "attention") for n in (SHOWN, 5 * SHOWN))
    assert few._repr_png_() == many._repr_png_()
    assert DebugTensor(np.ones((0, 4, 4)), "x", "attention")._repr_png_() is None


@pytest.mark.parametrize("space", SPACES)
def test_every_space_can_be_shown(space):
    x = DebugTensor(np.ones((1, 6, 6, 3 if space == "pixels" else 4)), "x", space)
    assert x._repr_png_().startswith(b"\x89PNG")


# --- on disk -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "x",
    [
        LATENT,
        DebugTensor(np.array([[NAN, INF]]), "ein Bär", "attention", ("query", "token")),
        DebugTensor(np.zeros((0, 4), np.uint8)),
        DebugTensor(np.array(True)),
        DebugTensor(np.arange(6).reshape(2, 3).T),
        DebugTensor(np.arange(3, dtype=">i4")),
    ],
)
def test_what_was_saved_comes_back(tmp_path, x):
    x.save(tmp_path / "x.safetensors")
    back = DebugTensor.load(tmp_path / "x.safetensors")
    np.testing.assert_array_equal(back.array, x.array)
    assert back.array.shape == x.array.shape
    assert back.array.dtype == x.array.dtype.newbyteorder("=")
    facts = ("name", "space", "dims", "step")
    assert [getattr(back, f) for f in facts] == [getattr(x, f) for f in facts]


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        LATENT.save(tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_a_file_of_something_else_is_told(tmp_path):
    places = [tmp_path / name for name in ("missing", "cut", "other", "unnamed")]
    LATENT.save(places[1])
    places[1].write_bytes(places[1].read_bytes()[:-5])
    save_file({"x": np.zeros(3)}, places[2])
    save_file({"array": np.zeros(3)}, places[3])
    for place in places:
        with pytest.raises(UsageError, match=rf"{place.name}.*\.save wrote"):
            DebugTensor.load(place)
