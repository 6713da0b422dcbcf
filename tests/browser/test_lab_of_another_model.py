"""The lab with a model that is no phantom: free text, no judge, and how long it will take."""

import re

import pytest
from playwright.sync_api import expect

from tests import tiny
from tests.browser.conftest import DONE, NARROW, lab_page, running_lab
from xray.film import Film

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    out = tmp_path_factory.mktemp("lab")
    with running_lab(out, "--weights", str(tiny.write_model(folder))) as lab:
        yield lab


def test_any_text_is_drawn_and_not_judged(lab, chromium):
    with lab_page(chromium, lab[0]) as view:
        for absent in ("#world", "#tours", "#which"):
            assert view.locator(absent).is_hidden()
        expect(view.locator("#reading")).to_contain_text("astronaut")
        view.fill("#prompt", "zebras, in the style of nobody")
        expect(view.locator("#reading")).to_contain_text("nobody")
        assert view.locator("#reading .unknown").count() == 0
        view.fill("#steps", "4")
        view.click("#draw")
        view.wait_for_selector("body[data-shown]", **DONE)
        assert view.inner_text("#found") == "" and "done in" in view.inner_text("#progress")
        frame = view.frame_locator("#film")
        assert frame.locator("#prompt").inner_text() == "zebras, in the style of nobody"
        assert frame.locator("#truth").is_hidden()
    (film,) = (Film.open(path.parent) for path in lab[1].glob("*/film.json"))
    assert film.finished and film.facts["weights"] == "tiny"


def test_what_is_left_is_told_and_the_next_waits(lab, chromium):
    with lab_page(chromium, lab[0], NARROW) as first, lab_page(chromium, lab[0]) as second:
        for view in (first, second):
            view.fill("#steps", "200")
            view.click("#draw")
        expect(first.locator("#progress")).to_contain_text(
            re.compile(r"step \d+ of 200, t = \d+, about \d+ s left"), **DONE
        )
        expect(second.locator("#progress")).to_have_text("waiting for its turn")
        first.click("#stop")
        expect(first.locator("#progress")).to_have_text("stopped", **DONE)
        expect(second.locator("#progress")).to_contain_text("of 200", **DONE)
        second.click("#stop")
        expect(second.locator("#progress")).to_have_text("stopped", **DONE)
        assert first.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
