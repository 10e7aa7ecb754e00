"""When something is due."""

import pytest

from utils.config.pretrain import PretrainConfig
from utils.training.samples import is_sample_step
from utils.training.schedule.intervals import Intervals


@pytest.mark.parametrize(("total", "records"), [(20, 20), (300, 100), (100_000, 2000)])
def test_even_a_short_run_has_a_curve(total, records):
    intervals = Intervals(PretrainConfig(logging_steps=50))
    assert sum(intervals.is_log_due(step, total) for step in range(1, total + 1)) == records


@pytest.mark.parametrize(
    ("total", "is_boxed", "patience", "due"),
    [
        (600, True, None, [100, 200, 300, 400, 500]),
        (2000, False, None, list(range(200, 2000, 200))),
        (250, False, None, [96, 192]),  # a validation for three times its tokens
        (90, False, None, []),
        (90, False, 3, [9, 18, 27, 36, 45, 54, 63, 72, 81]),
    ],
)
def test_validations_are_a_share_of_the_run_and_none_is_just_before_the_end(
    total, is_boxed, patience, due
):
    intervals, found, last = Intervals(PretrainConfig(early_stopping_patience=patience)), [], 0
    for step in range(1, total + 1):
        since, price = step - last, 131_072 / 4096
        if intervals.is_validation_due(step, total, since, is_boxed=is_boxed, price=price):
            found.append(step)
            last = step
    assert found == due


def test_eval_steps_are_taken_literally():
    intervals = Intervals(PretrainConfig(eval_steps=30))
    due = [
        n for n in range(1, 101) if intervals.is_validation_due(n, 100, 1, is_boxed=False, price=9)
    ]
    assert due == [30, 60, 90]


def test_a_save_is_due_by_steps_or_by_time():
    intervals = Intervals(PretrainConfig(save_steps=10))
    assert intervals.is_save_due(20, 100, 1.0) and intervals.is_save_due(21, 100, 301.0)
    assert not intervals.is_save_due(21, 100, 299.0) and not intervals.is_save_due(100, 100, 999.0)


def test_samples_come_at_log_spaced_steps():
    due = [step for step in range(1, 4000) if is_sample_step(step)]
    assert due == [10, 30, 100, 300, 1000, 3000]
