"""Calls that are kept on disk: handed out as they were, made again where they are not whole."""

import numpy as np
import pytest

from stable_diffusion_tf.compiled import Call
from xray import journal
from xray.journal import Journal


def call_of(*arrays) -> Call:
    return Call("unet", arrays, None, None)


@pytest.fixture
def made():
    """What the networks were asked, in order; each answer tells which question it was."""
    return []


@pytest.fixture
def begin(tmp_path, made):
    def answer(call: Call):
        made.append(call.arrays)
        x = np.float32(len(made)) + call.arrays[0]
        return {"eps": x, "taps": [x[:1], None, {"a/b": np.arange(3)}]}

    return lambda: Journal(tmp_path / "calls", answer)


def ask(run: Journal, number: int) -> list:
    return [run(call_of(np.full((2, 3), i, np.float32))) for i in range(number)]


def test_a_run_that_was_stopped_is_handed_what_it_had(begin, made):
    first = ask(begin(), 3)
    run = begin()
    again = ask(run, 5)
    assert len(made) == 5 and (run.calls, run.found) == (5, 3)
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
