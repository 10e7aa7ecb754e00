import time

import pytest

from utils.errors import BudgetError
from utils.finetuning.time_box import StepPlan, TimeBox


def test_the_rate_rises_in_warmup_and_falls_in_a_line_to_zero():
    plan = StepPlan(100, 0.1, [(0, 100)])
    assert [plan.rate(step) for step in (0, 4, 9)] == [0.1, 0.5, 1.0]
    assert plan.rate(10) == 1.0
    assert plan.rate(55) == pytest.approx(0.5)
    assert plan.rate(100) == 0


def test_a_change_of_plan_bends_the_line_without_a_jump():
    plan = StepPlan(100, 0.0, [(0, 100)])
    assert plan.change(50, 60)
    assert plan.rate(49) == pytest.approx(0.51)
    assert plan.rate(50) == pytest.approx(0.5)
    assert plan.rate(55) == pytest.approx(0.25)
    assert plan.rate(60) == 0
    assert plan.total == 60


def test_a_plan_never_grows_beyond_all_passes_and_small_changes_are_no_events():
    plan = StepPlan(100, 0.0, [(0, 80)])
    assert not plan.change(10, 81)
    assert plan.change(10, 500)
    assert plan.events == [(0, 80), (10, 100)]


def test_a_run_of_one_step_learns_at_the_full_rate():
    assert StepPlan(1, 0.05, [(0, 1)]).rate(0) == 1.0


def test_steps_fit_into_what_is_left_of_the_box():
    box = TimeBox(10.0)
    box.started, box.reserve_s = time.time() - 60, 40.0  # 10 min - 60 s - 40 s = 500 s
    assert box.fitting_steps(1.0, wanted=10_000) == pytest.approx(475, abs=1)
    assert box.fitting_steps(1.0, wanted=20) == 20


def test_a_box_too_small_names_the_minimum():
    box = TimeBox(1.0)
    box.started, box.reserve_s = time.time() - 30, 30.0
    with pytest.raises(BudgetError, match=r"--max_minutes 1 .* at least 1\.[2-4] minutes"):
        box.fitting_steps(1.0, wanted=100)


def test_without_a_box_everything_fits():
    assert TimeBox(None).fitting_steps(99.0, wanted=1000) == 1000
