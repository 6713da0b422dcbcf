"""Estimates: intervals against published values and planted cases, and how they are told."""

import numpy as np
import pytest

from stable_diffusion_tf.errors import UsageError
from xray.measure import Estimate, mean_of, p_value, share_of
from xray.measure.estimates import students_t


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),  # Newcombe, Stat. Med. 17 (1998), table I, method 3
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval_is_the_published_one(k, n, low, high):
    made = share_of(np.arange(n) < k)
    assert made[:2] == pytest.approx((k / n, low), abs=5e-5) and made.n == n
    assert made.high == pytest.approx(high, abs=5e-5)


@pytest.mark.parametrize(("freedom", "t"), [(3, 3.182), (7, 2.365), (29, 2.045)])
def test_students_t_is_the_tables(freedom, t):
    assert students_t(freedom) == pytest.approx(t, rel=8e-3)


@pytest.mark.parametrize("n", [4, 8, 30])
def test_the_interval_of_a_mean_holds_the_true_one_in_95_of_100(n):
    drawn = np.random.default_rng(0).standard_normal((400, n))
    made = [mean_of(some) for some in drawn]
    held = np.mean([one.low < 0 < one.high for one in made])
    assert 0.92 < held < 0.98


def test_a_mean_of_one_has_no_interval():
    one = mean_of(np.array([3.25]), "dB")
    assert np.isnan([one.low, one.high]).all() and str(one) == "3.25 dB"
    assert not one.clears(0) and not one.within(100)
    with pytest.raises(UsageError, match="here is none"):
        mean_of(np.array([]))


def test_values_of_one_case_count_as_one():
    values = np.random.default_rng(1).standard_normal(20)
    alone, doubled = mean_of(values), mean_of(values.repeat(3), cases=np.arange(20).repeat(3))
    assert doubled.value == pytest.approx(alone.value) and doubled.n == alone.n == 20
    assert doubled.width == pytest.approx(alone.width)
    assert mean_of(values.repeat(3)).width < 0.7 * alone.width


@pytest.mark.parametrize(
    ("estimate", "said"),
    [
        (Estimate(25.337, 24.912, 25.771, 8, "dB"), "25.34 dB [24.91, 25.77]"),
        (Estimate(87.63, 82.61, 92.04, 8, "%"), "87.6 % [82.6, 92.0]"),
        (Estimate(1234.0, 1100.0, 1400.0, 8), "1234 [1100, 1400]"),
        (Estimate(7 / 8, 0.529, 0.978, 8, "of"), "7 of 8 [53, 98 %]"),
        (Estimate(0.0, 0.0, 0.0, 8, "%"), "0 % [0, 0]"),
    ],
)
def test_it_is_told_with_the_digits_that_are_sure(estimate, said):
    assert str(estimate) == said


def test_a_count_is_told_with_its_cases():
    assert share_of(np.ones(8, bool)).of("pictures") == "8 of 8 pictures [68, 100 %]"


def test_a_difference_needs_its_whole_interval_beyond_and_equality_inside_a_margin():
    one = Estimate(2.0, 1.0, 3.0, 9)
    assert one.clears(0) and not one.clears(1.5) and not one.clears(-1)
    assert one.within(3.5) and not one.within(2.5)
    assert Estimate(-2.0, -3.0, -1.0, 9).clears(-0.5)


def test_chance_is_never_zero():
    assert p_value(5, np.arange(4)) == 1 / 5 and p_value(3, np.arange(4)) == 2 / 5
    assert p_value(np.float32(-1), np.arange(4)) == 1
