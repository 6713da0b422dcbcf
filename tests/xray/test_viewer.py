"""Pages for notebooks hold what is there, as data and never as markup, and are small.

A film's own page is tested in film/test_page.py; how all look in a browser, in tests/browser.
"""

import base64
import hashlib
import html
import re

import numpy as np
import pytest

import xray
from tests.xray.film.test_page import NASTY, array, held
from xray.film.heat_map import HeatMap, HeatMaps
from xray.probe.addresses import TapInfo
from xray.probe.survey import TapTable
from xray.viewer import page

PROMPT = "a cat left of an apple on a red background"


@pytest.fixture(scope="module")
def heat(sd) -> HeatMaps:
    return xray.heat_maps(sd, PROMPT)


def inside(shown: str) -> str:
    """The page in the frame that a notebook shows."""
    (found,) = re.findall(r'srcdoc="([^"]*)"', shown)
    return html.unescape(found)


# --- heat maps ---------------------------------------------------------------------------------


def test_the_page_of_heat_maps_holds_the_maps(heat):
    shown = heat._repr_html_()
    written = inside(shown)
    told = held(written, "words")
    assert len(shown) < 1e6 and [token["text"] for token in told["tokens"]] == [*heat]
    assert [step["t"] for step in told["steps"]] == heat.times and len(heat.times) == 25
    pooled, now = array(written, "pooled", "words"), array(written, "now", "words")
    for i, (word, one) in enumerate(heat.items()):
        np.testing.assert_allclose(pooled[i], one.array, atol=np.ptp(one.array) / 255)
        for step in (0, 24):
            map = heat.steps[step][word]
            np.testing.assert_allclose(now[step][i], map, atol=np.ptp(map) / 255)


def test_one_map_is_shown_by_itself(heat):
    told = held(inside(heat["cat"]._repr_html_()), "words")
    assert [token["text"] for token in told["tokens"]] == ["cat"] and not told["steps"]
    assert told["arrays"].keys() == {"pooled"}


def test_large_maps_come_as_means_of_their_places():
    fine, image = np.arange(512 * 256.0).reshape(512, 256), np.zeros((512, 256, 3), np.uint8)
    steps = [{"cat": fine[::4, ::4]}]
    shown = HeatMaps(image, {"cat": HeatMap("cat", fine, image)}, steps, [1])._repr_html_()
    pooled, now = (array(inside(shown), name, "words") for name in ("pooled", "now"))
    wanted = fine.reshape(128, 4, 64, 4).mean((1, 3))
    assert now.shape == (1, 1, 32, 16)
    np.testing.assert_allclose(pooled[0], wanted, atol=np.ptp(wanted) / 255)


# --- taps --------------------------------------------------------------------------------------


def test_the_table_of_taps_holds_every_value(sd):
    taps = xray.taps(sd)
    shown = taps._repr_html_()
    told = held(inside(shown), "taps")["columns"]
    assert len(shown) < 300_000 and len({len(column) for column in told.values()}) == 1
    assert told["address"] == [tap.address for tap in taps] and len(taps) > 400
    place = told["address"].index("unet.conv_in")
    assert told["shape"][place] == f"2 × 16 × 16 × {taps[place].shape[-1]}"
    assert told["dtype"][place] == "float32" and told["bytes"][place] == taps[place].bytes
    assert told["dims"][place] == "half, row, column, channel"
    few = xray.taps(sd, "unet.conv_in")._repr_html_()
    height = [int(re.search(r'height="(\d+)"', one)[1]) for one in (few, shown)]
    assert height[0] < height[1] == page.SMALL


# --- for all -----------------------------------------------------------------------------------


def shown_as(kind: str, said: str) -> str:
    """A page that says this wherever it can."""
    if kind == "taps":
        return TapTable([TapInfo(said, (2, 3), said, said, (said, said))])._repr_html_()
    image, map = np.zeros((8, 8, 3), np.uint8), np.eye(8)
    return HeatMaps(image, {said: HeatMap(said, map, image)}, [{said: map}], [1])._repr_html_()


@pytest.mark.parametrize("kind", ["taps", "words"])
def test_nothing_that_is_told_is_markup(kind):
    plain, hostile = shown_as(kind, "cat"), shown_as(kind, NASTY)
    for sign in ("<script", "<img", "<!--", "</iframe", "<div", "<iframe"):
        assert hostile.count(sign) == plain.count(sign), sign
        assert inside(hostile).count(sign) == inside(plain).count(sign), sign
    told = held(inside(hostile), kind)
    said = told["columns"]["address"][0] if kind == "taps" else told["tokens"][0]["text"]
    assert said == NASTY


@pytest.mark.parametrize("kind", page.KINDS)
def test_the_policy_names_the_very_scripts_and_styles(kind):
    written = page.write_page(kind, {"said": NASTY}).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', written)
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    for source, tag in (("script-src", "script"), ("style-src", "style")):
        (body,) = re.findall(rf"<{tag}>(.*?)</{tag}>", written, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{source} 'sha256-{digest}'" in policy
    assert "{{" not in written.replace("{{script}}", "") and held(written, kind)["said"] == NASTY


def test_a_frame_reaches_nothing_around_it():
    (sandbox,) = re.findall(r'sandbox="(.*?)"', page.framed(b"<p>"))
    assert {*sandbox.split()} == {"allow-scripts", "allow-downloads"}  # and not the same origin


def test_the_viewer_asks_for_nothing_and_is_small():
    scripts = {f"{name}.js" for _, names in page.KINDS.values() for name in names.split()}
    bodies = {f"{kind}.html" for kind in page.KINDS}
    there = {path.name for path in page.HERE.iterdir() if path.suffix in (".js", ".html", ".css")}
    assert there == {"page.html", "style.css", *bodies, *scripts}
    text = "".join(page.source(name) for name in sorted(scripts))
    assert len(text) < 50_000
    for word in ("fetch(", "XMLHttpRequest", "WebSocket", "import(", "eval(", "innerHTML", "http:"):
        assert word not in text.replace("http://www.w3.org/2000/svg", ""), word
