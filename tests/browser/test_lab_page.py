"""The lab in a browser: a run typed and seen, changed by a click, stopped, guessed, toured."""

import os
import re
import signal
import subprocess
import sys

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import DONE, NARROW, ROOT, lab_page, running_lab
from xray.film import Film

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with running_lab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture
def page(lab, chromium):
    with lab_page(chromium, lab[0]) as view:
        yield view


def draw(view, **settings) -> str:
    """Ask for a run and wait for its film; what it is called."""
    for name, value in settings.items():
        view.fill(f"#{name}", str(value))
    last = view.locator("body").get_attribute("data-shown")
    view.click("#draw")
    view.wait_for_selector(f'body[data-shown]:not([data-shown="{last}"])', **DONE)
    return view.locator("body").get_attribute("data-shown")


def test_before_the_first_run_there_is_no_empty_panel(tmp_path, chromium):
    with running_lab(tmp_path) as (link, *_), lab_page(chromium, link) as view:
        for panel in ("#live", "#changes", "#shelf", "#film"):
            assert view.locator(panel).is_hidden()
        draw(view, steps=2)
        for panel in ("#live", "#changes", "#shelf", "#film"):
            assert view.locator(panel).is_visible()


def test_the_token_does_not_stay_in_the_address(page):
    assert "token" not in page.url


def test_nothing_can_be_drawn_before_the_page_knows_the_model(lab, chromium):
    held = []
    with chromium.new_context() as context:
        view = context.new_page()
        view.route("**/model", lambda route: held.append(route))
        with view.expect_request("**/model"):
            view.goto(lab[0])
        expect(view.locator("#draw")).to_be_disabled()
        view.press("#prompt", "Enter")
        assert view.locator("#draw").is_disabled() and view.url == lab[0]
        held[0].continue_()
        expect(view.locator("#draw")).to_be_enabled()


def test_chips_make_only_sentences_that_the_phantom_knows(page):
    selects = page.locator("#world select:visible")
    assert selects.count() == 4  # one thing: no second
    page.locator("#world select").nth(1).select_option("apple")
    page.locator("#world select").nth(2).select_option("left of")
    page.locator("#world select").nth(5).select_option("blue")
    assert page.input_value("#prompt") == "an apple left of a dog on a blue background"
    expect(page.locator("#reading .unknown")).to_have_count(0)
    page.fill("#prompt", "a small cat above a dog on a red background")
    chips = [chip.input_value() for chip in page.locator("#world select").all()]
    assert chips == ["small", "cat", "above", "", "dog", "red"]


def test_unknown_words_are_struck_through(page):
    page.fill("#prompt", "a cat and a zebra")
    expect(page.locator("#reading .unknown")).to_have_text("zebra ")
    assert "never saw “zebra”" in page.inner_text("#reading")


def test_a_run_is_seen_step_by_step_and_the_last_stands_beside(page, lab):
    page.fill("#prompt", "a cat on a red background")
    page.fill("#steps", "10")
    page.click("#draw")
    expect(page.locator("#progress")).to_contain_text(re.compile(r"step \d+ of 10"), **DONE)
    expect(page.locator("#progress")).to_contain_text("done", **DONE)
    assert page.locator("#preview").get_attribute("src").startswith("data:image/png")
    page.wait_for_selector("body[data-shown]")
    first = draw(page, seed=4)
    frame = page.frame_locator("#film")
    expect(frame.locator("#stages figure")).to_have_count(5)
    assert "They begin from other noise" in frame.locator("#said").inner_text()
    assert re.search(r"things (not )?as asked", page.inner_text("#found"))
    assert "from the last" in page.inner_text("#found")
    film = Film.open(lab[1] / first)
    assert film.finished and film.facts["seed"] == 4
    assert page.locator("#films li").count() >= 2
    frame.locator("#stages canvas").first.hover()  # the page below grows by a list
    page.wait_for_timeout(200)
    height = frame.locator("body").evaluate("body => body.offsetHeight")
    assert page.locator("#film").bounding_box()["height"] == pytest.approx(height, abs=4)


def test_a_word_is_silenced_by_a_click_and_shown_as_python(page):
    page.fill("#prompt", "a cat on a red background")
    draw(page, steps=6)
    frame = page.frame_locator("#film")
    frame.locator("#tokens button").last.click()  # beside the word: two pins
    frame.locator("#tokens button").last.click()  # let go of the padding
    page.get_by_role("button", name="silence “cat”").click()
    assert "“cat” silenced" in page.inner_text("#list")
    draw(page)
    page.click("details summary")
    assert 'xray.Edit("unet.*.attn2.probs", lambda p: p * 0' in page.inner_text("#python")
    moved = float(re.search(r"([\d.]+) of 255 from the last", page.inner_text("#found"))[1])
    assert moved > 1
    page.get_by_label("without:").click()
    assert page.locator("#list li").count() == 0


def test_blocks_and_heads_are_switched_off_patched_and_steered(page):
    page.fill("#prompt", "a cat on a red background")
    draw(page, steps=4)
    frame = page.frame_locator("#film")
    frame.locator("#heads button").nth(13).click()
    for name in ("head 1 off", re.compile("^unet.*off$"), re.compile("^patch ")):
        page.get_by_role("button", name=name).click()
    page.get_by_label("another word").fill("dog")
    page.get_by_role("button", name="go from “cat” to").click()
    assert page.locator("#list li").count() == 4
    draw(page)
    page.click("details summary")
    code = page.inner_text("#python")
    assert (
        "heads=[1]" in code
        and "lambda y: y * 0" in code
        and "'cat', 'dog', 1" in code
        and "source=source" in code
    )


def test_a_run_can_be_stopped(page, lab):
    page.fill("#prompt", "a cat on a red background")
    page.fill("#steps", "200")
    page.click("#draw")
    expect(page.locator("#progress")).to_contain_text("step", **DONE)
    page.click("#stop")
    expect(page.locator("#progress")).to_have_text("stopped", **DONE)


def test_what_cannot_be_run_is_said(page):
    page.fill("#prompt", "a cat")
    page.eval_on_selector("#steps", "e => { e.removeAttribute('max'); e.value = 999; }")
    page.click("#draw")
    expect(page.locator("#progress")).to_contain_text("steps is a whole number from 1 to 200")
    assert len(page.told) == 1 and "400" in page.told.pop()  # Chromium's own words for the answer


def test_a_guess_is_held_against_the_map(page):
    page.fill("#prompt", "a cat on a red background")
    page.check("#guessing")
    page.fill("#steps", "5")
    page.click("#draw")
    page.wait_for_selector("#guess:visible", timeout=90_000)
    box = page.locator("#guess").bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    for y in range(60, 200, 10):
        page.mouse.move(box["x"] + 60, box["y"] + y)
        page.mouse.move(box["x"] + 180, box["y"] + y, steps=8)
    page.mouse.up()
    page.click("#held")
    expect(page.locator("#progress")).to_contain_text("meet with an IoU of", **DONE)
    share = float(page.inner_text("#progress").split()[-1])
    assert 0 <= share <= 1 and "“cat”" in page.inner_text("#progress")


@pytest.mark.parametrize("tour", range(5))
def test_a_tour_can_be_walked_to_its_end(tour, page):
    page.select_option("#tour", str(tour))
    stops = int(page.inner_text("#stop-of").split()[-1])
    shown = [chip.input_value() for chip in page.locator("#world select:visible").all()]
    assert all(word in page.input_value("#prompt") for word in shown)
    for stop in range(stops):
        assert page.inner_text("#stop-of") == f"{stop + 1} of {stops}" and page.inner_text("#say")
        expect(page.locator("#stop")).to_be_disabled(**DONE)
        expect(page.locator("#progress")).to_contain_text("done", **DONE)
        page.wait_for_timeout(400)
        if stop + 1 < stops:
            page.click("#next")
            page.wait_for_timeout(150)
    assert page.locator("#next").is_disabled()


def test_two_pages_at_once_lose_no_film(lab, chromium):
    link, out, _ = lab
    contexts = [chromium.new_context(viewport=NARROW) for _ in range(2)]
    views = [context.new_page() for context in contexts]
    for i, view in enumerate(views):
        view.goto(link)
        view.wait_for_selector("body[data-ready]")
        view.fill("#prompt", "a dog on a green background")
        view.fill("#steps", "8")
        view.fill("#seed", str(1000 + i))
        view.click("#draw")
    contexts[0].close()  # its run goes on
    expect(views[1].locator("#progress")).to_contain_text("done", **DONE)
    assert views[1].evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    contexts[1].close()
    seeds = {Film.open(path.parent).facts["seed"] for path in out.glob("*/image.png")}
    assert {1000, 1001} <= seeds


def test_a_killed_lab_leaves_films_that_open(tmp_path, chromium):
    command = [sys.executable, "-m", "xray.lab", "--no-browser", "--port", "0", "--out", tmp_path]
    with subprocess.Popen(
        [*map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        link = re.search(r"http\S+", process.stdout.readline())[0]
        context = chromium.new_context()
        view = context.new_page()
        view.goto(link)
        view.wait_for_selector("body[data-ready]")
        draw(view, steps=3)
        view.fill("#steps", "200")
        view.click("#draw")
        expect(view.locator("#progress")).to_contain_text("step", **DONE)
        os.kill(process.pid, signal.SIGKILL)
        expect(view.locator("#progress")).to_contain_text("lies on the disk", **DONE)
        context.close()
    films = [Film.open(path.parent) for path in sorted(tmp_path.glob("*/film.json"))]
    assert [film.finished for film in films] == [True, False] and len(films[1]) > 0
