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


# --- a whole run -------------------------------------------------------------------------------


@pytest.mark.usefixtures("clock")
def test_a_whole_run_is_told_by_its_pace_and_no_part_of_it(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with progress.whole_run(20.0) as advance:  # it takes thrice as long
        for _ in progress_bar(range(12)):
            advance(20 / 12)
    assert log.getvalue().splitlines() == [
        "the whole run: 33%, about 40 s left",
        "the whole run: 67%, about 20 s left",
        "the whole run: 100%, about 0 s left",
    ]


def test_a_whole_run_on_a_terminal_is_one_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.whole_run(10.0) as advance:
        assert [*progress_bar(range(3))] == [0, 1, 2]
        advance(5.0)
    told = terminal.getvalue()
    assert "the whole run" in told and "denoising" not in told
    assert [*progress_bar(range(3))] == [0, 1, 2] and "denoising" in terminal.getvalue()


def test_a_whole_run_with_a_closed_output_says_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with progress.whole_run(10.0) as advance:
        advance(20.0)


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.4, "0 s"), (89, "89 s"), (840, "14 min"), (9000, "2.5 h")]
)
def test_seconds_are_told_in_words(seconds, told):
    assert progress.in_words(seconds) == told
