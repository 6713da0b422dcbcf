"""Progress: a bar on a terminal, lines where there is none, nothing where all is shut."""

import io
import sys

import pytest

from stable_diffusion_tf import progress
from stable_diffusion_tf.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """Each look at the clock is five seconds after the last."""
    now = iter(range(0, 10_000, 5))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(now)))


@pytest.mark.usefixtures("clock")
def test_a_log_gets_a_line_every_twenty_seconds(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    assert [*progress_bar(range(10))] == [*range(10)]
    assert log.getvalue().splitlines() == [
        "denoising: 3 of 10, about 47 s left",
        "denoising: 7 of 10, about 17 s left",
    ]


def test_what_is_quick_says_nothing(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    assert [*progress_bar("abc", "pictures", "batch")] == ["a", "b", "c"] and not log.getvalue()


def test_a_terminal_gets_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert [*progress_bar(range(3))] == [0, 1, 2] and "denoising" in terminal.getvalue()


def test_a_closed_output_gets_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert [*progress_bar(range(3))] == [0, 1, 2]
