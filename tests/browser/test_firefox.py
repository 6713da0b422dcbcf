"""The same pages in Firefox: pictures are drawn, keys are heard, and the console stays empty."""

import pytest

import xray
from phantom.attribution.examples import masks_in
from tests.browser.conftest import notebook
from tests.browser.firefox import Firefox, find_firefox, started
from xray.film import Film, page

pytestmark = pytest.mark.browser

PROMPT = "a rabbit left of a strawberry on a purple background"
LEFT = "\ue012"  # the arrow key
PIXELS = """
  const canvas = document.querySelectorAll("#stages canvas")[arguments[0]];
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return [...data].filter((_, i) => i % 397 === 0);
"""


@pytest.fixture(scope="module")
def firefox(tmp_path_factory):
    path = find_firefox()
    if not path:
        pytest.skip("no Firefox: apt install firefox-esr, or say where it is: FIREFOX=/path")
    with started(path, tmp_path_factory.mktemp("profile")) as firefox:
        yield firefox


@pytest.fixture(scope="module")
def film(sd, tmp_path_factory) -> Film:
    how = {"probes": page.probes(), "steps": 6}
    return Film.shoot(sd, PROMPT, out=tmp_path_factory.mktemp("films") / "film", **how)


def settled(firefox: Firefox) -> None:
    """Until what was asked for is painted."""
    firefox.run(
        "window.painted = false;"
        "requestAnimationFrame(() => requestAnimationFrame(() => { window.painted = true; }));"
    )
    firefox.wait("return window.painted")


def test_a_film_is_seen_and_walked_by_keys(firefox, film, tmp_path):
    url = film.to_html(tmp_path / "film.html", masks_in(film.image)).as_uri()
    firefox.open(url)
    settled(firefox)
    seen = [firefox.run(PIXELS, 0), firefox.run(PIXELS, 1)]
    assert all(len(set(some)) > 20 for some in seen)
    firefox.press(LEFT)
    settled(firefox)
    assert "step 4" in firefox.run("return document.getElementById('told').textContent")
    for before, now in zip(seen, (firefox.run(PIXELS, 0), firefox.run(PIXELS, 1)), strict=True):
        assert sum(abs(a - b) for a, b in zip(before, now, strict=True)) > len(now)
    assert not firefox.errors(url)


def test_heat_maps_in_a_notebook_answer_to_clicks(firefox, sd, tmp_path):
    heat = xray.heat_maps(sd, PROMPT, steps=4)
    firefox.open(notebook(tmp_path / "heat.html", heat._repr_html_()).as_uri())
    firefox.enter_frame()
    before = firefox.run(PIXELS, 1)
    for index in (1, 5):  # the pin of the rabbit goes, that of the strawberry comes
        firefox.run("document.querySelectorAll('#tokens button')[arguments[0]].click()", index)
    settled(firefox)
    said = firefox.run("return document.querySelectorAll('#stages figcaption')[1].textContent")
    assert said.startswith("the map of “strawberry”")
    assert firefox.run(PIXELS, 1) != before and not firefox.errors("about:srcdoc")


def test_what_is_wrong_would_be_told(firefox, tmp_path):
    wrong = tmp_path / "wrong.html"
    wrong.write_text('<body data-ready="yes"><script>nothing.such</script>')
    firefox.open(wrong.as_uri())
    assert any("nothing is not defined" in said for said in firefox.errors(wrong.as_uri()))
