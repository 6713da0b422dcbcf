"""What a notebook shows: a film, heat maps and the table of taps, each in a frame of its own."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

import xray
from tests.browser.conftest import NARROW, notebook
from tests.xray.film.test_page import NASTY
from xray.film import Film, page
from xray.probe.addresses import TapInfo
from xray.probe.survey import TapTable

pytestmark = pytest.mark.browser

PROMPT = "a rabbit left of a strawberry on a purple background"
RABBIT, STRAWBERRY = 1, 5  # among the words


@pytest.fixture(scope="module")
def heat(sd):
    return xray.heat_maps(sd, PROMPT)


@pytest.fixture(scope="module")
def taps(sd):
    return xray.taps(sd)


@pytest.fixture
def show(open_page, tmp_path):
    """What is in the frame that a notebook shows of a thing."""

    def shown(thing, **options):
        view = open_page(notebook(tmp_path / "a.html", thing._repr_html_()), **options)
        frame = view.frame_locator("iframe")
        frame.locator("body[data-ready]").wait_for(timeout=20_000)
        return view, frame

    return shown


def span(frame) -> tuple[float, float]:
    """From where to where the map that is shown goes, as it says."""
    said = frame.locator("#stages figcaption").nth(1).inner_text()
    return tuple(map(float, said.split("from ")[1].split(" to ")))


def pixels(frame, index: int) -> np.ndarray:
    url = frame.locator("#stages canvas").nth(index).evaluate("canvas => canvas.toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB"))


def ends(map: np.ndarray):
    return pytest.approx((map.min(), map.max()), rel=6e-3)


# --- heat maps ---------------------------------------------------------------------------------


def test_a_word_that_is_hovered_or_clicked_shows_its_map(heat, show):
    view, frame = show(heat)
    chips = frame.locator("#tokens button")
    assert chips.all_inner_texts() == [*heat]
    assert "“rabbit”" in frame.locator("#stages figcaption").nth(1).inner_text()
    assert span(frame) == ends(heat["rabbit"].array)
    chips.nth(STRAWBERRY).hover()
    expect(frame.locator("#stages figcaption").nth(1)).to_contain_text("“strawberry”")
    assert span(frame) == ends(heat["strawberry"].array)
    hot = pixels(frame, 1).astype(float).sum(-1)
    inside = heat["strawberry"].inside().repeat(8, 0).repeat(8, 1)
    assert hot[inside].mean() > hot[~inside].mean() + 50
    chips.nth(RABBIT).click()  # it was pinned: the pin goes
    view.mouse.move(5, 5)
    expect(frame.locator("#stages figure").nth(1)).to_be_hidden()
    chips.nth(STRAWBERRY).click()
    chips.nth(RABBIT).click()
    apart = heat["strawberry"].array - heat["rabbit"].array
    expect(frame.locator("#stages figcaption").nth(1)).to_contain_text("less “rabbit”")
    assert span(frame) == pytest.approx((apart.min(), apart.max()), abs=0.005)


def test_each_step_has_its_map(heat, show):
    _, frame = show(heat)
    frame.locator("#play").focus()
    for key, step in (("ArrowLeft", 23), ("ArrowLeft", 22), ("ArrowRight", 23)):
        frame.locator("#play").press(key)
        expect(frame.locator("#told")).to_have_text(
            f"step {step} of 0 … 24, t = {heat.times[step]}"
        )
        assert span(frame) == ends(heat.steps[step]["rabbit"])
    before = pixels(frame, 1)
    frame.get_by_label("all, pooled").check()
    expect(frame.locator("#stages figcaption").nth(1)).to_contain_text("all steps")
    assert span(frame) == ends(heat["rabbit"].array)
    assert np.abs(before.astype(int) - pixels(frame, 1)).mean() > 1


def test_a_place_tells_what_each_words_map_has_there(heat, show):
    _, frame = show(heat)
    box = frame.locator("#stages canvas").first.bounding_box()
    at = {"x": box["width"] * 0.2, "y": box["height"] * 0.4}
    frame.locator("#stages canvas").first.click(position=at)
    rows = frame.locator("#pixel li").all()
    assert len(rows) == 10  # of words alone
    for row in rows[:3]:
        word, _, value = row.locator("span, meter").all_inner_texts()
        assert float(value) == pytest.approx(heat[word].array[25, 12], abs=0.03)


def test_one_map_has_no_steps_to_choose(heat, show):
    _, frame = show(heat["strawberry"])
    assert frame.locator("#tokens button").all_inner_texts() == ["strawberry"]
    assert frame.locator("#time").is_hidden() and frame.locator("#span").is_hidden()
    assert span(frame) == ends(heat["strawberry"].array)


# --- films -------------------------------------------------------------------------------------


def test_a_film_in_a_notebook_is_pinned_and_walked(sd, show, tmp_path):
    film = Film.shoot(sd, PROMPT, steps=4, probes=page.probes(), out=tmp_path / "film")
    view, frame = show(film)
    frame.locator("#tokens button").nth(6).click()
    view.mouse.move(5, 5)
    expect(frame.locator("#stages figcaption").nth(1)).to_contain_text("less “strawberry”")
    frame.locator("#play").press("ArrowLeft")
    expect(frame.locator("#told")).to_contain_text("step 2 of 0 … 3")


# --- taps --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "fits"),
    [
        ("attn2.probs", lambda tap: ".attn2.probs" in tap.address),
        ("ATTN2 up_blocks", lambda tap: "attn2" in tap.address and "up_blocks" in tap.address),
        ("unet*attn1.to_k", lambda tap: "attn1.to_k" in tap.address),
        ("int32", lambda tap: "int32" in tap.dtype),
        ("h-space", lambda tap: tap.meaning == "the h-space"),
        ("head,*key", lambda tap: {"head", "key"} <= {*tap.dims}),
        ("(nothing[", lambda tap: False),
    ],
)
def test_taps_are_narrowed_by_typing(typed, fits, taps, show):
    _, frame = show(taps)
    frame.locator("#typed").fill(typed)
    wanted = [tap.address for tap in taps if fits(tap)]
    expect(frame.locator("#facts")).to_contain_text(f"{len(wanted)} of {len(taps)} values")
    shown = frame.locator("#table tbody tr:visible td:first-child").all_inner_texts()
    assert [address.replace("\n", "") for address in shown] == wanted


def test_what_a_tap_is_called_is_text(show):
    _, frame = show(TapTable([TapInfo(NASTY, (2, 3), NASTY, NASTY, (NASTY, "b"))]))
    assert frame.locator("img").count() == 0
    assert frame.locator("td").first.text_content() == NASTY


@pytest.mark.parametrize("width", [1000, 1400])
def test_heat_maps_are_seen_without_scrolling(width, heat, show):
    _, frame = show(heat, viewport={"width": width, "height": 900})
    low = "() => document.documentElement.scrollHeight - innerHeight"
    assert frame.locator("body").evaluate(low) <= 0


@pytest.mark.parametrize("name", ["heat", "taps"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_notebook_cuts_nothing_off(name, scheme, request, show):
    thing = request.getfixturevalue(name)
    _, frame = show(thing, viewport=NARROW, color_scheme=scheme)
    wide = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert frame.locator("body").evaluate(wide) <= 0
    ground = frame.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) > 384) == (scheme == "light")
