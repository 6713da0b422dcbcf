"""Chromium, offline, driven by Playwright: `make browser-test` installs both."""

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

# `make test` does without Playwright, and leaves these out.
collect_ignore_glob = [] if find_spec("playwright") else ["test_*.py"]

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update"
)
WIDE, NARROW = {"width": 1400, "height": 1200}, {"width": 420, "height": 900}


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
    away = [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
    assert not away
