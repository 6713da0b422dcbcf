"""What is said of a run before its work and in its midst, by a clock that only calls move."""

import gc
import re
import weakref
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from stable_diffusion_tf.compiled import Call, pass_on
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.machine import Memory, peak_memory
from xray.budget import rehearsal, watch
from xray.budget.choice import amounts, smaller
from xray.budget.watch import Watch
from xray.options import Batch

COMPILING, A_ROW = 10.0, 0.5  # seconds of a first call, and of each picture in a call
TAKEN = re.compile(r"about \d+ (s|min), \d+\.\d GB")


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    made = SimpleNamespace(now=0.0, begun=0)
    for name in ("monotonic", "perf_counter"):
        monkeypatch.setattr(watch.time, name, lambda: made.now)
    return made


@pytest.fixture
def main(clock):
    """An experiment that calls the UNet at each step for all pictures."""
    known = set()

    def compute(x: np.ndarray, *_: np.ndarray) -> np.ndarray:
        clock.now += A_ROW * len(x) + (0 if len(x) in known else COMPILING)
        known.add(len(x))
        return x

    def outline(x: keras.KerasTensor, *_: keras.KerasTensor) -> keras.KerasTensor:
        return x

    def main(sd, options) -> float:
        clock.begun += 1
        started, n = clock.now, options.pictures
        given = np.zeros((n, 8, 8, 4)), np.zeros(n), np.zeros((n, 77, 32))
        for _ in range(options.steps):
            pass_on(Call("unet", given, compute, outline))
        return clock.now - started

    return main


def run(main, sd, asked: Batch, limit: float | None = None) -> tuple[Batch, float]:
    """The options that were run, and the seconds that it took."""
    kept = Watch(main, sd, asked, started=0.0)
    kept.look_ahead(limit)
    with kept.watching():
        return kept.asked, main(sd, kept.asked)


def test_a_quick_run_is_not_looked_ahead_and_nothing_is_said(main, small, clock, capsys):
    run(main, small, Batch(pictures=2, steps=5))  # 15 seconds
    assert clock.begun == 1 and capsys.readouterr().err == ""


def test_a_run_under_a_minute_is_looked_ahead_and_nothing_is_said(main, small, clock, capsys):
    run(main, small, Batch(pictures=2, steps=40))  # 50 seconds
    assert clock.begun == 2 and capsys.readouterr().err == ""


def test_a_long_run_is_told_once_with_a_shorter_one_and_then_as_a_whole(main, small, capsys):
    asked, seconds = run(main, small, Batch(pictures=8, steps=100))
    assert seconds == COMPILING + 100 * 8 * A_ROW and asked == Batch(pictures=8, steps=100)
    told, *whole = capsys.readouterr().err.splitlines()
    assert told.startswith("about 7 min, ") and TAKEN.match(told)
    assert told.endswith("; --pictures 4 --steps 50 would take 2 min")
    assert len(whole) >= 15 and whole[0] == "the whole run: 5%, about 6 min left"
    assert whole[-1].startswith("the whole run: 9")


def test_a_large_model_is_looked_ahead_before_the_work(main, small, clock, monkeypatch, capsys):
    monkeypatch.setattr(watch, "LARGE", 0)
    kept = Watch(main, small, Batch(pictures=8, steps=100), started=0.0)
    kept.look_ahead(None)
    assert clock.now == COMPILING + 2 * 8 * A_ROW, "one kind of call, compiled and timed"
    assert kept.plan.counts and not kept.plan.calls, "a call would hold its network to the end"
    assert capsys.readouterr().err.startswith("about 7 min, ")


def test_what_was_loaded_to_look_ahead_is_gone_before_the_run(small, clock):
    class Network:
        def __init__(self):
            self.layers = [self]  # as a model of Keras refers to itself

        def __call__(self, x):
            return x

    loaded = []

    def main(sd, options) -> None:
        network = Network()
        loaded.append(weakref.ref(network))
        pass_on(Call("unet", (np.zeros((1, 8, 8, 4)),), network.__call__, lambda x: x))

    gc.disable()
    try:
        Watch(main, small, Batch(), started=0.0).look_ahead(1e9)
        assert loaded and not any(one() for one in loaded)
    finally:
        gc.enable()


def test_a_report_has_beside_the_truth_what_was_foretold(main, small, clock):
    kept = Watch(main, small, Batch(pictures=8, steps=100), started=0.0)
    assert "foretold" not in kept.facts(), "nobody has looked ahead"
    kept.look_ahead(1e9)
    with kept.watching():
        main(small, kept.asked)
    told = kept.facts()
    assert told["evaluations"] == {"unet": 800}
    assert told["foretold"]["seconds"] == pytest.approx(clock.now)
    assert told["foretold"]["peak_gb"] == pytest.approx(peak_memory() / 1e9, abs=0.1)


@pytest.mark.parametrize("limit", [60.0, 100.0, 200.0, 300.0])
def test_the_budget_is_kept_and_used(limit, main, small, clock, capsys):
    asked, _ = run(main, small, Batch(pictures=8, steps=100), limit)
    options = smaller(Batch(pictures=8, steps=100))
    before, less = [Batch(pictures=8, steps=100), *options][options.index(asked)], amounts(asked)
    told = capsys.readouterr().err.splitlines()[0]
    assert clock.now <= limit
    assert (
        clock.now - A_ROW * np.prod([*less.values()]) + A_ROW * np.prod([*amounts(before).values()])
        > limit
    ), "the next larger one would have fitted"
    assert told.startswith(f"--pictures {less['pictures']} --steps {less['steps']}: about ")


def test_a_budget_that_is_long_enough_changes_nothing_and_says_so(main, small, capsys):
    asked, _ = run(main, small, Batch(pictures=2, steps=5), 600.0)
    assert asked == Batch(pictures=2, steps=5) and TAKEN.fullmatch(capsys.readouterr().err.strip())


def test_a_budget_that_is_too_short_is_refused_with_one_that_is_not(main, small):
    with pytest.raises(UsageError, match=r"--pictures 2 --steps 1, the least, takes about") as said:
        run(main, small, Batch(pictures=8, steps=100), 5.0)
    enough = int(re.search(r"try --budget (\d+)s or more", str(said.value))[1])
    asked, _ = run(main, small, Batch(pictures=8, steps=100), enough + COMPILING)
    assert amounts(asked)["steps"] >= 1


@pytest.mark.parametrize("limit", [None, 600.0])
def test_what_does_not_fit_is_refused_with_what_does(limit, main, small, clock, monkeypatch):
    a_picture = rehearsal.unet_bytes(small.unet_config) * 64 + 4 * 64 * 4
    monkeypatch.setattr(rehearsal, "memory", lambda: Memory(None, 5 * a_picture))
    with pytest.raises(UsageError, match=r"GB are free; try --pictures 5 --steps 60$"):
        run(main, small, Batch(pictures=8, steps=100), limit)
    assert clock.now == 0, "nothing was computed"


def test_what_never_fits_is_refused_without_a_hint_at_less(main, small, monkeypatch):
    monkeypatch.setattr(rehearsal, "memory", lambda: Memory(None, 1))
    with pytest.raises(UsageError, match="free some, or name other --weights"):
        run(main, small, Batch())
