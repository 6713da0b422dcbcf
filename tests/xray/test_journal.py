"""Calls that are kept on disk: handed out as they were, made again where they are not whole."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from stable_diffusion_tf.compiled import Call
from xray import journal
from xray.journal import Journal, clear, kept, key_of

ROOT = Path(__file__).resolve().parents[2]


def call_of(*arrays) -> Call:
    return Call("unet", arrays, None, None)


@pytest.fixture
def made():
    """What the networks were asked, in order; each answer tells which question it was."""
    return []


class Watch:
    """Makes calls of a run, a long one unless told otherwise."""

    def __init__(self, made: list, long: bool):
        self.made, self.long, self.passed = made, long, 0

    def __call__(self, call: Call):
        self.made.append(call.arrays)
        x = np.float32(len(self.made)) + call.arrays[0]
        return {"eps": x, "taps": [x[:1], None, {"a/b": np.arange(3)}]}

    def pass_over(self, call: Call) -> None:
        self.passed += 1


@pytest.fixture
def begin(tmp_path, made):
    return lambda long=True: Journal(tmp_path, lambda: tmp_path / "calls", Watch(made, long))


def ask(run: Journal, number: int) -> list:
    return [run(call_of(np.full((2, 3), i, np.float32))) for i in range(number)]


def test_a_run_that_was_stopped_is_handed_what_it_had(begin, made):
    first = ask(begin(), 3)
    run = begin()
    again = ask(run, 5)
    assert len(made) == 5 and (run.calls, run.found, run.watch.passed) == (5, 3, 3)
    for one, other in zip(first, again[:3], strict=True):
        np.testing.assert_array_equal(one["eps"], other["eps"])
        assert other["eps"].dtype == np.float32 and other["taps"][1] is None
        np.testing.assert_array_equal(other["taps"][2]["a/b"], range(3))


def test_what_differs_from_what_was_asked_is_made_again(begin, made):
    ask(begin(), 2)
    run = begin()
    run(call_of(np.zeros((2, 3), np.float32)))
    run(call_of(np.zeros((3, 2), np.float32)))  # the same bytes, another shape
    assert run.found == 1 and len(made) == 3
    run = begin()
    ask(run, 2)
    assert run.found == 1, "the last that was asked is what is kept"


@pytest.mark.parametrize("harm", ["cut", "flip", "empty"])
def test_what_is_not_whole_is_made_again(harm, begin, made, tmp_path):
    ask(begin(), 2)
    place = tmp_path / "calls" / "000001.npz"
    data = bytearray(place.read_bytes())
    data[data.index(np.full(6, 3, np.float32).tobytes())] ^= 1  # a bit of a number
    place.write_bytes({"cut": data[:-40], "flip": data, "empty": b""}[harm])
    run = begin()
    ask(run, 2)
    assert len(made) == 3 and run.found == 1


def test_a_full_disk_keeps_nothing_and_the_run_goes_on(begin, made, monkeypatch, tmp_path):
    monkeypatch.setattr(journal, "SPARE", 1e18)
    assert len(ask(begin(), 3)) == 3 and not any((tmp_path / "calls").iterdir())

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal, "SPARE", 0)
    monkeypatch.setattr(journal, "write", refuse)
    assert len(ask(begin(), 3)) == 3 and len(made) == 6


def test_no_more_is_kept_than_is_allowed(begin, monkeypatch):
    monkeypatch.setattr(journal, "MOST", 100)
    ask(begin(), 4)
    run = begin()
    ask(run, 4)
    assert run.found == 1


def test_of_a_short_run_nothing_is_kept(tmp_path, made):
    unfinished = tmp_path / "unfinished"
    with kept(Watch(made, long=False), unfinished, lambda: pytest.fail("asked for")) as run:
        ask(run, 3)
    assert len(made) == 3 and not unfinished.exists()


def test_what_was_kept_goes_at_the_end_and_stays_where_the_run_is_stopped(tmp_path, made, capsys):
    unfinished = tmp_path / "unfinished"
    with pytest.raises(KeyboardInterrupt), kept(Watch(made, True), unfinished, str) as run:
        ask(run, 3)
        raise KeyboardInterrupt
    assert "the same command goes on" in capsys.readouterr().err
    with kept(Watch(made, True), unfinished, str) as run:
        ask(run, 4)
    assert len(made) == 4 and run.found == 3 and not unfinished.exists()


def test_another_runs_calls_stay_for_a_week(tmp_path):
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
    long_ago = time.time() - journal.STALE - 10
    os.utime(tmp_path / "old", (long_ago, long_ago))
    clear(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["new"]


def test_a_run_is_known_by_all_that_decides_it(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    told = {"script": "x", "options": {"steps": 2}}
    first = key_of(told, tmp_path)
    assert first == key_of(dict(reversed(told.items())), tmp_path)
    assert first != key_of(told | {"script": "y"}, tmp_path)
    (tmp_path / "a.json").write_text("{} ")
    assert first != key_of(told, tmp_path)


LONG = """
import sys
from xray.budget import watch
watch.LONG, watch.GRACE, watch.SHARE = 0.0, 0.0, 1000.0
from experiments import test_guidance
from xray import script
script.run_experiment(test_guidance.main, test_guidance.Options)
"""
WORDS = ["a cat", "--steps", "6", "--pictures", "2", "--scales", "1", "3"]


def start(out: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", LONG, *WORDS, "--out", str(out)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def test_a_killed_experiment_goes_on_and_ends_with_the_same_bits(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert start(whole).communicate() and not (whole / "test_guidance" / "unfinished").exists()
    run, calls = start(stopped), stopped / "test_guidance" / "unfinished"
    while len(kept_in(calls)) < 4:
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.01)
    run.kill()
    run.communicate()
    before = {path: path.stat().st_mtime_ns for path in kept_in(calls)}
    run = start(stopped)
    while run.poll() is None and all(path.exists() for path in before):
        now = {path: path.stat().st_mtime_ns for path in before if path.exists()}
        assert now.items() <= before.items(), "a call was made twice"
        time.sleep(0.02)
    _, complained = run.communicate()
    assert run.returncode == 0, complained
    assert not calls.exists()
    mine, theirs = (tensors_of(out) for out in (whole, stopped))
    for name, array in mine.items():
        np.testing.assert_array_equal(theirs[name], array)


def kept_in(calls: Path) -> list[Path]:
    return sorted(calls.glob("*/*.npz"))


def tensors_of(out: Path) -> dict[str, np.ndarray]:
    (place,) = (out / "test_guidance").glob("*/tensors.safetensors")
    return load_file(place)
