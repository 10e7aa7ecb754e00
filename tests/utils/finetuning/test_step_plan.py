import math
import random

import pytest

from utils.errors import BudgetError
from utils.finetuning.step_plan import StepPlan, fitting_steps
from utils.time_box import Clock, TimeBox


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


def bent_line(events, warmup_ratio, step):
    """The rate by its definition: up in warmup, then from each change in a line to the new end."""
    start, level, end = math.ceil(warmup_ratio * events[0][1]), 1.0, events[0][1]
    if step < start:
        return (step + 1) / start
    for changed_at, total in events[1:]:
        if changed_at > step:
            break
        if changed_at > start:
            level *= max(0, end - changed_at) / max(1, end - start)
            start = changed_at
        end = total
    return level * max(0, end - step) / max(1, end - start)


@pytest.mark.parametrize("warmup_ratio", [0.0, 0.05, 0.1, 0.3, 0.7])
def test_the_rate_of_any_plan_is_the_bent_line(warmup_ratio):
    chance = random.Random(3)
    for _ in range(300):
        plan = StepPlan(400, warmup_ratio, [(0, chance.randrange(8, 300))])
        for _ in range(chance.randrange(4)):
            step = chance.randrange(plan.events[-1][0], plan.total)
            plan.change(step, chance.randrange(plan.warmup + 2, 400))
        rates = [plan.rate(step) for step in range(plan.total)]
        wanted = [bent_line(plan.events, warmup_ratio, step) for step in range(plan.total)]
        assert rates == pytest.approx(wanted, abs=1e-12), plan.events


def box_after(seconds, minutes, reserve_s):
    """A time box of which `seconds` are used."""
    return TimeBox(minutes, StandingClock(seconds), reserve_s)


class StandingClock(Clock):
    """A clock that stands still."""

    def elapsed_s(self):
        return self.used_before_s


def test_steps_fit_into_what_is_left_of_the_box():
    box = box_after(60.0, minutes=10.0, reserve_s=40.0)  # 500 s are left
    assert fitting_steps(box, 1.0, wanted=10_000) == 475
    assert fitting_steps(box, 1.0, wanted=20) == 20


def test_a_box_too_small_names_the_minimum():
    box = box_after(30.0, minutes=1.0, reserve_s=30.0)  # 30 + 30 + 2 / 0.95 s
    with pytest.raises(BudgetError, match=r"--max_minutes 1 .* at least 1\.1 minutes"):
        fitting_steps(box, 1.0, wanted=100)


def test_a_box_that_holds_a_few_steps_does_these_and_says_so(caplog):
    box = box_after(50.0, minutes=1.0, reserve_s=6.0)  # 4 s are left
    assert fitting_steps(box, 1.0, wanted=100) == 3
    assert "only 3 of 100 steps fit" in caplog.text


def test_without_a_box_everything_fits():
    assert fitting_steps(TimeBox(None), 99.0, wanted=1000) == 1000
