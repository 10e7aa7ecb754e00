import math

import pytest

from utils.evaluation.statistics import (
    Estimate,
    bootstrap_ratio,
    exponential,
    scaled,
    skill,
    wilson,
)


def test_wilson_gives_the_published_intervals():
    half = wilson(50, 100)
    assert (half.value, half.count) == (0.5, 100)
    assert (half.low, half.high) == pytest.approx((0.403832, 0.596168), abs=1e-6)
    seven = wilson(7, 10)
    assert (seven.low, seven.high) == pytest.approx((0.396774, 0.892211), abs=1e-5)


def test_wilson_has_a_width_at_both_ends_and_stays_inside():
    assert (wilson(0, 10).low, wilson(0, 10).high) == (0.0, pytest.approx(0.277533, abs=1e-6))
    assert (wilson(10, 10).low, wilson(10, 10).high) == (pytest.approx(0.722467, abs=1e-6), 1.0)


def test_bootstrap_of_equal_items_has_no_width():
    estimate = bootstrap_ratio([2.0] * 5, [4.0] * 5)
    assert (estimate.value, estimate.low, estimate.high, estimate.count) == (0.5, 0.5, 0.5, 5)


def test_bootstrap_weights_items_by_their_size_and_is_seeded():
    first = bootstrap_ratio([1.0, 30.0], [1.0, 10.0], seed=3)
    assert first.value == pytest.approx(31 / 11)
    assert (first.low, first.high) == (1.0, 3.0)
    assert bootstrap_ratio([1.0, 2.0, 9.0], [1, 1, 1], seed=3) == bootstrap_ratio(
        [1.0, 2.0, 9.0], [1, 1, 1], seed=3
    )


def test_units_change_without_losing_the_interval():
    nats = Estimate(math.log(2), 0.0, 2 * math.log(2), 7)
    assert scaled(nats, 1 / math.log(2)) == Estimate(1.0, 0.0, 2.0, 7)
    words = exponential(nats)
    assert (words.value, words.low, words.high) == pytest.approx((2.0, 1.0, 4.0))


def test_an_infinite_perplexity_is_null_in_json():
    assert exponential(Estimate(900.0, 1.0, 901.0, 2)).as_dict()["value"] is None


def test_no_skill_is_said_when_the_interval_includes_the_baseline():
    assert skill(Estimate(0.65, 0.60, 0.70, 100), 0.6217) == (
        "no skill shown: the interval includes the baseline"
    )
    assert skill(Estimate(0.38, 0.30, 0.46, 100), 0.6217) == "no skill shown: below the baseline"
    assert skill(Estimate(0.80, 0.70, 0.90, 100), 0.6217) == "better than the baseline"
