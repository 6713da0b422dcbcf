"""A film as one page: what it holds is the film's, and nothing that the film says runs.

How it looks and what the hands do is tested in a browser: tests/browser.
"""

import base64
import html
import json
import re
import zlib

import numpy as np
import pytest

from stable_diffusion_tf.errors import UsageError
from tests.xray import reel
from xray.attention import INSIDE, Pooling, word_maps
from xray.film import Film, page
from xray.film.storage import write_json
from xray.measure import iou_at

NASTY = "</script><img src=x onerror=alert(1)> \"' {{script}} <!-- é ☃"


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Film:
    return Film.open(reel.write(tmp_path_factory.mktemp("films") / "run", 3))


@pytest.fixture(scope="module")
def written(film, tmp_path_factory) -> str:
    masks = {"cat": np.eye(8, dtype=bool), "dog": np.ones((8, 8), bool)}
    path = tmp_path_factory.mktemp("pages") / "run.html"
    return film.to_html(path, masks).read_text("utf-8")


def held(written: str, kind: str = "film") -> dict:
    return json.loads(re.search(rf'id="{kind}">(.*?)</script>', written, re.DOTALL)[1])


def array(written: str, name: str, kind: str = "film") -> np.ndarray:
    """An array of the page, in the numbers that it stands for."""
    told = held(written, kind)["arrays"][name]
    text = re.search(rf'id="array-{name}">(.*?)</script>', written, re.DOTALL)[1]
    kind = {1: "<u1", 2: "<u2"}[told["bytes"]]
    values = np.frombuffer(zlib.decompress(base64.b64decode(text)), kind).reshape(told["shape"])
    low, high = (np.array(told[end]) for end in ("low", "high"))
    maps = values.reshape(len(low), -1) / (256 ** told["bytes"] - 1)
    return (low[:, None] + maps * (high - low)[:, None]).reshape(told["shape"])


# --- the numbers -------------------------------------------------------------------------------


def test_latents_are_the_films(film, written):
    for name in ("x", "x0"):
        np.testing.assert_allclose(
            np.moveaxis(array(written, name), 1, -1), film[name][:, 0], atol=1e-4
        )


def test_maps_of_layers_are_the_films(film, written):
    told = held(written)
    assert [t["text"] for t in told["tokens"]] == ["<start>", "a", "cat", "<end>", "<padding>"]
    for i, layer in enumerate(told["layers"]):
        maps, probs = array(written, f"layer{i}"), film[layer["address"]]
        for token, group in enumerate(told["tokens"]):
            wanted = probs[..., group["places"]].sum(-1)  # (steps, halves, heads, positions)
            np.testing.assert_allclose(maps[:, :, :, token], wanted, atol=np.ptp(wanted) / 255)


def test_pooled_maps_are_those_of_heat_maps(film, written):
    words = [("a", [1]), ("cat", [2])]
    for name, shots in {"pooled": film, "now": [film[1]]}.items():
        wanted = word_maps(shots, words, grid=(4, 4))
        found = array(written, name) if name == "pooled" else array(written, name)[1]
        for one, key in zip(found, ("<start>", "a", "cat", "<end>", "<padding>"), strict=True):
            np.testing.assert_allclose(one, wanted[key], atol=np.ptp(wanted[key]) / 255)


def test_steps_that_count_otherwise_are_shown_too(film, tmp_path):
    pooling = Pooling(steps=[0, 1, 0])
    told = film.to_html(tmp_path / "a.html", pooling=pooling).read_text("utf-8")
    maps, each = array(told, "pooled"), array(told, "now")
    np.testing.assert_allclose(maps, each[1], atol=np.ptp(maps) / 100)


def test_the_iou_is_that_of_the_maps(film, written):
    (known,) = held(written)["known"]  # the prompt has no dog
    assert known["token"] == 2 and known["rows"][3] == "00010000"
    mask, words = np.eye(8, dtype=bool), [("a", [1]), ("cat", [2])]
    for i, shots in enumerate([[*film], [film[0]], [film[1]], [film[2]]]):
        maps = word_maps(shots, words, grid=(8, 8))
        assert known["own"][i] == pytest.approx(iou_at(maps["cat"], mask, INSIDE))
        assert known["blind"][i] == pytest.approx(iou_at(-maps["<start>"], mask, INSIDE))


def test_curves_are_measured(film, written):
    found = held(written)["curves"]
    sizes = [np.sqrt(np.mean(frame["x"] ** 2)) for frame in film]
    np.testing.assert_allclose(found["RMS of x"][""], sizes, rtol=1e-4)
    a, b = film[1]["eps_uncond"], film[1]["eps_cond"]
    moved = np.sqrt(np.mean((b - a) ** 2) / np.mean(a**2))
    assert found["‖ε_cond − ε_uncond‖ / ‖ε_uncond‖"][""][1] == pytest.approx(moved, rel=1e-4)


def test_blocks_that_were_probed_are_told(sd, tmp_path):
    film = Film.shoot(sd, "a cat", steps=2, probes=page.probes(), out=tmp_path / "film")
    told = held(film.to_html(tmp_path / "a.html").read_text("utf-8"))
    first = told["blocks"][0]
    means = film[first["address"]]  # (steps, halves, channels)
    np.testing.assert_allclose(first["size"], np.sqrt((means[:, -1] ** 2).mean(-1)), rtol=1e-4)
    sides = {re.match(r"unet\.(\w+?)_block", one["address"])[1] for one in told["blocks"]}
    assert sides == {"down", "mid", "up"} and len(told["layers"]) == 5
    expected = told["curves"]["variance of x"]["as the schedule has it"]
    assert len(expected) == 2 and min(expected) > 0.2


# --- sizes -------------------------------------------------------------------------------------


def test_a_page_that_grows_too_large_gives_up_heads(film, tmp_path):
    shapes = {}
    for megabytes in (9, 0):
        told = film.to_html(tmp_path / "a.html", megabytes=megabytes).read_text("utf-8")
        shapes[megabytes] = held(told)["arrays"]["layer0"]["shape"]
    assert shapes[9][:3] == [3, 2, 2] and shapes[0][:3] == [3, 1, 1]
    groups = [[i] for i in range(5)]
    for saved, shape in enumerate([(3, 2, 2, 5), (1, 2, 2, 5), (3, 2, 1, 5), (3, 1, 1, 5)]):
        maps, grid = page.layer_maps(film, reel.PROBS, groups, saved, (4, 4))
        assert maps.shape == (*shape, 16) and grid == (4, 4)
        wanted = np.moveaxis(film[reel.PROBS], -1, -2)  # (steps, halves, heads, tokens, positions)
        wanted = wanted.mean(0, keepdims=True) if saved == 1 else wanted
        wanted = wanted.mean(2, keepdims=True) if saved > 1 else wanted
        np.testing.assert_allclose(maps, wanted[:, -1:] if saved == 3 else wanted, atol=1e-6)
    assert held(told)["saved"] == [*page.SAVINGS[1:]]


def test_fine_layers_come_as_means_of_places_at_last(film, monkeypatch):
    monkeypatch.setattr(page, "FEW", 2)
    maps, grid = page.layer_maps(film, reel.PROBS, [[2]], 4, (4, 4))
    assert maps.shape == (3, 1, 1, 1, 4) and grid == (2, 2)
    probs = film[reel.PROBS][:, -1].mean(1)[..., 2].reshape(3, 2, 2, 2, 2).mean((2, 4))
    np.testing.assert_allclose(maps.reshape(3, 2, 2), probs, atol=1e-6)


def test_a_film_without_attention_or_picture_is_shown_too(tmp_path):
    folder = reel.write(tmp_path / "run", 2, asked=4)
    film = Film.open(folder)
    told = page.payload(film, {}, 0, page.DEFAULT)
    assert told["picture"] is None and told["colours"] is None
    assert [one["index"] for one in told["steps"]] == [0, 1]


def test_a_film_of_no_step_is_refused(tmp_path):
    with pytest.raises(UsageError, match="has no step to show"):
        Film.open(reel.write(tmp_path / "run", 0, asked=4)).to_html(tmp_path / "a.html")


# --- what a film says runs nowhere -------------------------------------------------------------


@pytest.fixture
def hostile(tmp_path) -> str:
    folder = reel.write(tmp_path / "run", 2)
    facts = Film.open(folder).facts
    tokens = ["<|startoftext|>", NASTY, "cat", "<|endoftext|>", "<|endoftext|>"]
    said = dict.fromkeys(("negative", "weights", "backend", "precision"), NASTY)
    write_json(folder / "film.json", {**facts, **said, "prompt": NASTY, "tokens": tokens})
    return Film.open(folder).to_html(tmp_path / "a.html").read_text("utf-8")


def test_nothing_of_a_film_is_markup(hostile, written):
    told = held(hostile)
    assert told["facts"]["prompt"] == NASTY and told["tokens"][1]["text"] == NASTY
    assert "onerror=alert" in hostile and "<img src=x" not in hostile and "<!-- é" not in hostile
    for sign in ("<script", "</script", "<img", "<!--", "<style"):
        assert hostile.count(sign) == written.count(sign), sign


def test_nothing_of_the_machine_is_told(film, written):
    told = held(written)["facts"]
    assert told.keys() <= set(page.TOLD) and str(film.folder) not in written


def test_a_notebook_shows_the_page_in_small(film, tmp_path, hostile):
    shown = film._repr_html_()
    assert shown.startswith("<div>") and shown.count("<iframe ") == 1
    (inner,) = re.findall(r'srcdoc="([^"]*)"', shown)
    told = held(html.unescape(inner))
    assert told["arrays"]["layer0"]["shape"][2] == 1 and told["facts"]["prompt"] == "a cat"
    assert "<script" not in shown  # all of it is one attribute
    empty = Film.open(reel.write(tmp_path / "none", 0, asked=4))
    assert "iframe" not in empty._repr_html_()
