"""Chromium, offline, driven by Playwright: `make browser-test` installs both, and Firefox."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

# `make test` does without Playwright, and leaves these out.
collect_ignore_glob = [] if find_spec("playwright") else ["test_*.py"]

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update"
)
WIDE, NARROW = {"width": 1400, "height": 1200}, {"width": 420, "height": 900}
ROOT = Path(__file__).resolve().parents[2]
DONE = {"timeout": 90_000}  # a run of the lab


@pytest.fixture(scope="session")
def chromium() -> Iterator:
    from playwright.sync_api import sync_playwright

    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    assert found, "no Chromium: apt install chromium, or say where it is: CHROMIUM=/path"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS.split())
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """Opens a file; at the end nothing may have been requested but it, and no error told."""
    contexts, told, asked = [], [], []

    def opened(path, fragment="", viewport=WIDE, **options):
        context = chromium.new_context(
            offline=True, viewport=viewport, accept_downloads=True, **options
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri() + fragment)
        page.wait_for_selector("body[data-ready]", timeout=20_000)
        page.wait_for_timeout(100)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not told
    away = [url for url in asked if not url.startswith(("file:", "data:", "blob:", "about:"))]
    assert not away


def notebook(path: Path, shown: str) -> Path:
    """A page around what a notebook shows, at the path."""
    path.write_text(f'<!doctype html><meta charset="utf-8"><body data-ready="yes">{shown}', "utf-8")
    return path


@contextmanager
def running_lab(out: Path, *words: str) -> Iterator[tuple[str, Path, subprocess.Popen]]:
    """Its link, its folder of films, and its process."""
    words = ("--no-browser", "--port", "0", "--out", str(out), *words)
    process = subprocess.Popen(
        [sys.executable, "-m", "xray.lab", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    link = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", line)
    assert link, line + process.stderr.read()
    try:
        yield link[0], out, process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        process.stdout.close()
        process.stderr.close()


@contextmanager
def lab_page(chromium, link: str, viewport=WIDE) -> Iterator:
    """The lab's page; at the end no error may have been told, and nothing asked of others."""
    told, asked = [], []
    context = chromium.new_context(viewport=viewport)
    view = context.new_page()
    view.on("console", lambda message: told.append(message.text))
    view.on("pageerror", lambda error: told.append(str(error)))
    view.on("request", lambda request: asked.append(request.url))
    view.told = told
    view.goto(link)
    view.wait_for_selector("body[data-ready]")
    yield view
    context.close()
    own = link.split("/?")[0]
    assert not told
    assert all(url.startswith((own, "data:", "blob:")) for url in asked)
