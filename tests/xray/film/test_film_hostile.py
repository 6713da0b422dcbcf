"""Whatever stands in a film's files: a film or one clear line, in no time, and nothing started."""

import io
import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from stable_diffusion_tf.errors import UsageError
from tests.xray import reel
from xray.film import Film
from xray.film import replay as replaying
from xray.film.recipe import rules_from
from xray.film.storage import UNSEALED, frame_path, write_json, write_tensors
from xray.probe.interventions import Edit, Mean, Probe
from xray.probe.words import edits_by_source, functions

WHOLE = {
    "prompt": "a cat",
    "negative": "",
    "seed": 0,
    "steps": 2,
    "guidance": 7.5,
    "eta": 0.0,
    "start": "seed",
    "latent_shape": [1, reel.SIDE, reel.SIDE, 4],
    "tokens": reel.WORDS,
    "scheduler": "DDIM",
    "weights": "tiny",
    "precision": "float32",
    "backend": "tensorflow",
    "versions": {"keras": "3"},
    "weights_hash": {"unet": "0"},
    "taps": reel.TAPS,
    "probes": [],
    "edits": [],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return reel.write(tmp_path_factory.mktemp("films") / "run", 2)


@pytest.fixture
def own(tmp_path) -> Path:
    return reel.write(tmp_path / "run", 3)


def sealed(text: bytes) -> bytes:
    """The text, which holds a seal of zeros, under its right seal."""
    return text.replace(UNSEALED, b'"crc32": "%08x"' % zlib.crc32(text), 1)


def write_text(folder: Path, rest: str) -> None:
    """A film.json that begins with its right seal."""
    text = f'{{"crc32": "00000000", {rest}}}'
    (folder / "film.json").write_bytes(sealed(text.encode()))


# --- film.json ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        *((text, "is no JSON object") for text in ("[]", "null", "7", '"a film"')),
        *((text * 200_000, "is nested too deep") for text in ("[", '{"a":')),
    ],
)
def test_what_is_no_object_is_no_film(own, text, told):
    (own / "film.json").write_text(text)
    with pytest.raises(UsageError, match=rf"^no film: .*film\.json {told}$"):
        Film.open(own)


@pytest.mark.parametrize(
    ("rest", "told"),
    [
        ('"steps": "3"', "says steps: '3', where a whole number belongs"),
        ('"steps": null', "says steps: None"),
        ('"steps": 2.5', "says steps: 2.5"),
        ('"steps": true', "says steps: True"),
        ('"taps": null', "says taps: None"),
        ('"taps": ["x"]', "says taps: "),
        ('"taps": {"x": 3}', "says taps: "),
        ('"latent_shape": [1, 1000000000, 1000000000, 4]', "says latent_shape: "),
        ('"kernels": {"oneDNN": ["on"]}', "says kernels: "),
        ('"versions": {"keras": "\\u001b[31m"}', "says versions: "),
        ('"start": "nowhere"', "says start: 'nowhere'"),
        ('"guidance": NaN', "holds NaN"),
        ('"guidance": -Infinity', "holds -Infinity"),
        ('"steps": 3, "steps": 4', "says 'steps' twice"),
        ('"edits": [{"a": 1, "a": 2}]', "says 'a' twice"),
    ],
)
def test_what_no_film_says_is_told(own, rest, told):
    write_text(own, rest)
    with pytest.raises(UsageError) as caught:
        Film.open(own)
    assert str(caught.value).startswith("no film: ") and told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_steps_that_there_are_not_take_no_time(own):
    write_json(own / "film.json", WHOLE | {"steps": 10**9})
    film = Film.open(own)
    assert len(film) == 3 and film.state.startswith("3 of 1000000000 steps; ")
    assert len(film.damaged) == 21 and film.damaged["frames/003.safetensors"] == "is missing"
    assert film.damaged["frames/023.safetensors"] == "is missing, and so are 999999976 after it"


def test_a_number_that_is_too_large_is_damage(own):
    write_text(own, '"guidance": 1e999')
    assert Film.open(own).damaged == {"film.json": "holds the number 1e999, which is too large"}


def test_places_that_are_no_folder(tmp_path):
    (tmp_path / "film.json").mkdir()
    for place in (tmp_path, tmp_path / ("a" * 300), "a\0b", tmp_path / "film.json" / "x"):
        with pytest.raises(UsageError, match="no film"):
            Film.open(place)


# --- frames and the picture --------------------------------------------------------------------


def test_a_frame_of_no_step_is_named(own):
    held = frame_path(own, 2).read_bytes()
    write_json(own / "film.json", WHOLE | {"steps": 3})
    frame_path(own, 20240101123456).write_bytes(held)
    film = Film.open(own)
    stray = "frames/20240101123456.safetensors"
    assert film.damaged == {stray: "is the frame of no step: the run has 3"}
    assert len(film) == 3 and film.finished


def test_a_stray_frame_of_a_film_whose_facts_are_lost_takes_no_time(own):
    (own / "film.json").write_text("{")
    frame_path(own, 20240101123456).write_bytes(b"")
    film = Film.open(own)
    assert len(film) == 3 and len(film.damaged) == 23  # it, film.json, 20 gaps and their rest


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize(
    "name", ["film.json", "frames/001.safetensors", "text.safetensors", "image.png"]
)
def test_pipes_do_not_hang(own, name):
    (own / name).unlink()
    os.mkfifo(own / name)
    if name == "film.json":
        with pytest.raises(UsageError, match=r"^no film: .*is no regular file$"):
            Film.open(own)
    else:
        assert Film.open(own).damaged == {name: "is no regular file"}


def frame_of(head: object, numbers: bytes = b"", length: int | None = None) -> bytes:
    """A file of arrays with this head, under its right seal."""
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    told = len(text) if length is None else length
    return sealed(told.to_bytes(8, "little") + text + numbers)


SEAL = {"crc32": "00000000"}
TOLD = {"__metadata__": SEAL | {"index": "1", "t": "899"}}


def entry(shape: list, end: int, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}


LIES = {
    "a huge head": frame_of(TOLD, length=2**62),
    "a huge shape": frame_of(TOLD | {"x": entry([10**12], 4 * 10**12)}),
    "a shape that does not fit": frame_of(TOLD | {"x": entry([10**12], 4)}, b"0000"),
    "a hundred axes": frame_of(TOLD | {"x": entry([1] * 100, 4)}, b"0000"),
    "an empty giant": frame_of(TOLD | {"x": entry([0, 2**40, 2**40], 0)}),
    "a negative side": frame_of(TOLD | {"x": entry([-1, -1], 4)}, b"0000"),
    "another dtype": frame_of(TOLD | {"x": entry([1], 4, "I32")}, b"0000"),
    "no index": frame_of({"__metadata__": SEAL | {"t": "1"}}),
    "a bad index": frame_of({"__metadata__": SEAL | {"index": "one", "t": "1"}}),
    "an index of 5000 digits": frame_of({"__metadata__": SEAL | {"index": "1" * 5000, "t": "1"}}),
    "no metadata": frame_of({"a": SEAL}),
    "no object": frame_of([SEAL]),
    "no JSON": frame_of(b'{"crc32": "00000000", '),
    "a climbing name": frame_of(TOLD | {"../../x": entry([1], 4)}, b"0000"),
    "other names": frame_of(TOLD | {"y": entry([1], 4)}, b"0000"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_sealed_frame_that_lies_is_named_and_the_others_read(own, lie):
    frame_path(own, 1).write_bytes(LIES[lie])
    film = Film.open(own)
    assert [*film.damaged] == ["frames/001.safetensors"] and [*film.frames] == [0, 2]
    wrong = film.damaged["frames/001.safetensors"]
    assert "checksum" not in wrong and "\n" not in wrong and len(wrong) < 200
    np.testing.assert_array_equal(film["x0"], [reel.step(i).x0 for i in (0, 2)])


@pytest.mark.parametrize("head", [[SEAL], 7, {"a": SEAL}])
def test_a_text_that_lies_is_named(own, head):
    text = frame_of(head) if head != 7 else b"\x01" + bytes(7) + b"7"
    (own / "text.safetensors").write_bytes(text)
    film = Film.open(own)
    assert [*film.damaged] == ["text.safetensors"] and not film.text and len(film) == 3
    with pytest.raises(UsageError, match="holds no 'context'"):
        film["context"]


def png_of(side: int, mode: str = "RGB") -> bytes:
    made = io.BytesIO()
    Image.new(mode, (1, 1)).save(made, "PNG")
    size = made.getvalue()[16:24]
    chunk = b"IHDR" + side.to_bytes(4, "big") * 2 + made.getvalue()[24:29]
    crc = zlib.crc32(chunk).to_bytes(4, "big")
    assert size == b"\0\0\0\1" * 2
    return made.getvalue()[:12] + chunk + crc + made.getvalue()[33:]


@pytest.mark.parametrize(
    "held",
    [
        png_of(60_000),
        png_of(12_000)[:60],
        png_of(1, "L"),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"",
    ],
)
def test_a_picture_that_is_none_of_a_run_is_named(own, held):
    (own / "image.png").write_bytes(held)
    film = Film.open(own)
    assert [*film.damaged] == ["image.png"] and film.image is None and len(film) == 3


def test_frames_of_several_shapes_are_told(own):
    frame = dict(Film.open(own)[1]) | {"x0": np.zeros(3)}
    write_tensors(frame_path(own, 1), frame, index=1, t=899)
    film = Film.open(own)
    for ask in (lambda: film["x0"], lambda: film.to_npz(own / "film.npz"), film.to_xarray):
        with pytest.raises(UsageError, match=r"x0 is \(3,\) at step 1 .*film\[1\]\['x0'\]"):
            ask()
    assert film[1]["x0"].shape == (3,) and film["x"].shape[0] == 3


# --- anything ----------------------------------------------------------------------------------

names = st.sampled_from(
    ["probe", "edit", "mean", "take", "ops.tanh", "os:system", "json:loads", "\x1b[31m"]
)
ways = st.sampled_from(
    ["..", "../../../etc", "/etc", r"\\host\share", "c:/x", ".", "a\0b", "../run"]
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text(max_size=5)
    | names
    | ways
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["class", "fields", "film", "own", "lost"]), inner)
    ),
    max_leaves=8,
)
called = st.fixed_dictionaries({"function": names | st.text(max_size=3)})
means = st.fixed_dictionaries({"class": names, "fields": st.fixed_dictionaries({"dims": values})})
fields = st.dictionaries(
    st.sampled_from(["pattern", "reduce", "fn", "steps", "half", "heads", "tokens", "source"]),
    values | called | means | st.fixed_dictionaries({"film": ways}),
)
rules = st.fixed_dictionaries({"class": names, "fields": fields}) | called | values
facts = st.dictionaries(st.sampled_from([*WHOLE]), values, max_size=2)
wild = st.tuples(st.sampled_from(["probes", "edits"]), st.lists(rules, max_size=2), facts)


def nearly_right(word: str, field: str) -> st.SearchStrategy:
    """A film that is right but for what a rule names."""
    held = st.fixed_dictionaries({"pattern": st.just("*"), field: called | means})
    rule = st.fixed_dictionaries({"class": st.just(word), "fields": held})
    return st.tuples(st.just(f"{word}s"), st.lists(rule, min_size=1, max_size=2), st.just({}))


class Reached(Exception):
    """The rules were read, and the run would begin."""


@settings(
    max_examples=400,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(wild | nearly_right("probe", "reduce") | nearly_right("edit", "fn"))
def test_anything_is_a_film_or_one_clear_line(folder, monkeypatch, case):
    kind, asked, changed = case
    started = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "system", lambda *_, **__: started.append("os.system"))
        patch.setattr("xray.probe.instrumented.instrument", reached)
        text = json.dumps(WHOLE | {kind: asked} | changed)[1:-1]
        write_text(folder, text)
        try:
            film = Film.open(folder)
            assert len(film) <= 2 and "\n" not in repr(film) and film._repr_html_()
            replaying.replay(film, None)
        except UsageError as error:
            assert len(str(error).splitlines()) == 1 and str(error).isprintable()
        except Reached:
            pass
    assert not started


def reached(_, probes, edits):
    """Whatever a rule would call is ours."""
    ours = {None, *functions().values(), *edits_by_source().values()}
    called = [probe.reduce for probe in probes] + [edit.fn for edit in edits]
    assert all(isinstance(one, Mean) or one in ours for one in called), called
    assert {type(rule) for rule in (*probes, *edits)} <= {Probe, Edit}
    raise Reached


@pytest.mark.parametrize(
    "way", ["/tmp", "//host/share", r"\\host\share", "c:/film", r"c:film", "\\film", "a\0b", ""]
)
def test_a_source_that_does_not_lie_on_from_the_film_is_not_looked_for(own, way):
    opened = []
    edit = {"class": "edit", "fields": {"pattern": "*", "source": {"film": way}}}
    with pytest.raises(UsageError, match=r"starts nothing: .*replay\(sd, edits=\[…\]\)$"):
        rules_from([edit], own, "edits", opened.append)
    assert not opened
    edit["fields"]["source"]["film"] = "../other/film"
    rules_from([edit], own, "edits", lambda place: opened.append(place) or Film.open(own))
    assert opened == [own / "../other/film"]


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,0e-NaInfity ', max_size=60))
def test_any_bytes_are_a_film_or_one_clear_line(folder, held):
    raw = held if isinstance(held, bytes) else held.encode()
    (folder / "film.json").write_bytes(raw)
    try:
        assert Film.open(folder).damaged
    except UsageError as error:
        assert str(error).startswith("no film: ") and len(str(error).splitlines()) == 1
