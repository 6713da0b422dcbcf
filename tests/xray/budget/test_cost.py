"""What calls cost, from what some of them took."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from stable_diffusion_tf.compiled import Call
from xray.budget.cost import Cost, Times, measure, seconds_of
from xray.budget.rehearsal import Key


def unet(rows: int, given: int = 3) -> Key:
    return Key("unet", given, ((rows, 16, 16, 4), (rows,), (rows, 77, 128)))


DECODER, ENCODER = (Key("vae", 1, ((1, *shape),)) for shape in ((16, 16, 4), (64, 64, 3)))


@pytest.fixture
def times() -> Times:
    times = Times()
    for seconds in (5.0, 2.0, 30.0, 2.0):  # compiled at first, and once interrupted
        times.note(unet(8), seconds)
    for seconds in (1.5, 0.5):
        times.note(DECODER, seconds)
    return times


def test_a_run_is_its_calls_and_each_kind_is_compiled_once(times):
    counts = {unet(8): 10, DECODER: 4}
    assert seconds_of(counts, times) == 10 * 2 + 3 + 4 * 0.5 + 1
    assert seconds_of(counts, times, compiled={unet(8)}) == 10 * 2 + 4 * 0.5 + 1


def test_another_size_takes_as_long_as_it_is_large(times):
    assert times.of(unet(16)) == 4 and times.of(unet(2, given=4)) == 0.5
    assert times.compiling(unet(16)) == 3


def test_the_halves_of_the_vae_are_not_taken_for_each_other(times):
    assert times.of(ENCODER) == 0 and times.compiling(ENCODER) == 0


def test_what_was_called_once_takes_as_long_as_it_did(times):
    times.note(ENCODER, 7.0)
    assert seconds_of({ENCODER: 1}, times) == 7


def test_the_unet_is_timed_last_so_that_what_others_took_is_free_again():
    made, shapes = [], {unet(2): 4, DECODER: 2, ENCODER: 1}
    counts = Counter(shapes)

    def call(key: Key) -> Call:
        arrays = tuple(np.zeros(shape) for shape in key.shapes)
        return Call(key.network, arrays, lambda *_: made.append(key), lambda *_: None)

    measure(SimpleNamespace(counts=counts, calls={key: call(key) for key in counts}), Times())
    assert made == [DECODER, DECODER, ENCODER, unet(2), unet(2)], "once what is called once"


@pytest.mark.parametrize(
    ("cost", "told"),
    [
        (Cost(42.4, None), "about 42 s"),
        (Cost(840, 4_900_000_000), "about 14 min, 4.9 GB"),
        (Cost(9000, 1_000_000_000, whole=False), "over 2.5 h, 1.0 GB"),
    ],
)
def test_a_cost_is_told_in_a_few_words(cost, told):
    assert str(cost) == told
