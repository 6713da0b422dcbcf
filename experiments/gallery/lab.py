"""Films the lab itself for the README: docs/lab.webp, a moving picture of a run and a click.

python -m experiments.gallery.lab      needs what `make browser-test` installs
"""

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import tyro
from PIL import Image

TARGET = Path(__file__).resolve().parents[2] / "docs" / "lab.webp"
WINDOW, WIDTH = {"width": 1280, "height": 900}, 800
PROMPT = "a rabbit left of a strawberry on a purple background"
GUIDANCE = "4"  # as the phantom likes it
RABBIT, STRAWBERRY = 2, 6  # among the chips
QUALITY = 60


class Reel:
    """Frames of a page, each with how long it is shown, in milliseconds."""

    def __init__(self, page: Any):
        self.page, self.frames, self.times = page, [], []

    def shoot(self, milliseconds: int) -> None:
        image = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        size = WIDTH, round(image.height * WIDTH / image.width)
        self.frames.append(image.resize(size, Image.Resampling.LANCZOS))
        self.times.append(milliseconds)

    def save(self, path: Path) -> None:
        first, *rest = self.frames
        how = {"duration": self.times, "loop": 0, "quality": QUALITY, "method": 6}
        first.save(path, save_all=True, append_images=rest, **how)


def main(out: Path = TARGET, weights: str = "phantom") -> None:
    """Film the lab.

    Args:
        out: the moving picture.
        weights: the phantom to draw with.
    """
    from playwright.sync_api import sync_playwright

    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    films = tempfile.mkdtemp()
    words = ["--no-browser", "--port", "0", "--weights", weights, "--out", films]
    command = [sys.executable, "-m", "xray.lab", *words]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as lab,
        sync_playwright() as playwright,
    ):
        try:
            link = re.search(r"http\S+", lab.stdout.readline())[0]
            browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
            page = browser.new_page(viewport=WINDOW)
            page.goto(link)
            page.wait_for_selector("body[data-ready]")
            play(page, reel := Reel(page))
            reel.save(out)
            browser.close()
        finally:
            lab.terminate()
    print(f"{out}: {len(reel.frames)} frames, {out.stat().st_size / 1e6:.2f} MB")


def play(page: Any, reel: Reel) -> None:
    """A run, its steps, a word's map, a word silenced."""
    page.fill("#prompt", PROMPT)
    page.fill("#guidance", GUIDANCE)
    reel.shoot(900)
    draw(page, reel)
    frame = page.frame_locator("#film")
    page.evaluate("document.querySelector('#film').scrollIntoView()")
    for token in (RABBIT, STRAWBERRY):
        frame.locator("#tokens button").nth(token).hover()
        page.wait_for_timeout(150)
        reel.shoot(1000)
    for step in range(0, 25, 3):
        show = "document.querySelector('#film').contentWindow.viewer.set"
        page.evaluate(f"{show}({{ step: {step}, show: 'x0', span: 'now' }})")
        page.wait_for_timeout(100)
        reel.shoot(220)
    page.evaluate("scrollTo(0, 0)")
    page.get_by_role("button", name="silence “rabbit”").click()
    reel.shoot(900)
    draw(page, reel)
    page.evaluate("document.querySelector('#film').scrollIntoView()")
    page.wait_for_timeout(300)
    reel.shoot(2500)


def draw(page: Any, reel: Reel) -> None:
    """Ask for a run, and look at it while it is computed."""
    last = page.locator("body").get_attribute("data-shown")
    page.click("#draw")
    while page.locator("body").get_attribute("data-shown") == last:
        reel.shoot(150)
    page.wait_for_timeout(300)
    reel.shoot(900)


if __name__ == "__main__":
    tyro.cli(main)
