"""Warmup, stable, decay: the shape, and what a re-plan may change."""

import pytest

from utils.training.schedule.schedule import ENDLESS, Replan, Schedule, replay


def test_the_shape_of_a_hundred_steps():
    plan = Schedule.plan(100, 10, 0.5)
    assert [plan.factor(step) for step in (0, 4, 9, 10, 49, 50)] == [0.1, 0.5, 1, 1, 1, 1]
    assert plan.factor(75) == 0.5
    assert plan.factor(99) == pytest.approx(0.02) and plan.factor(100) == 0


def test_warmup_takes_a_tenth_of_a_short_run():
    assert Schedule.plan(20, 100, 0.6).warmup == 2
    assert Schedule.plan(1, 100, 1.0).factor(0) == 1


def test_warmup_is_a_twentieth_up_to_a_hundred_steps_unless_it_is_named():
    found = [Schedule.plan(total, None, 0.6).warmup for total in (1, 120, 1200, 2000, 10**6)]
    assert found == [1, 6, 60, 100, 100]
    assert replay([], 5, None, 0.6).factor(9) == 0.5  # of a length that is not known yet


def test_before_the_decay_only_its_start_moves():
    plan = Schedule.plan(100, 10, 0.5)
    longer = plan.replanned(30, 200)
    assert (longer.decay_start, longer.total, longer.warmup) == (100, 200, 10)
    assert [longer.factor(step) for step in (30, 99)] == [1, 1]


@pytest.mark.parametrize("total", [80, 95, 130])
def test_inside_the_decay_the_rate_goes_on_from_its_value_to_zero_at_the_new_end(total):
    plan = Schedule.plan(100, 10, 0.5)
    changed = plan.replanned(70, total)
    assert changed.factor(70) == plan.factor(70)
    assert changed.factor(total) == 0
    drops = [changed.factor(step) - changed.factor(step + 1) for step in range(70, total)]
    assert max(drops) == pytest.approx(min(drops))


def test_a_run_cut_short_of_its_decay_decays_from_now_on():
    changed = Schedule.plan(100, 10, 0.5).replanned(40, 60)
    assert changed.factor(40) == 1 and changed.factor(50) == 0.5 and changed.factor(60) == 0


def test_a_replay_knows_no_later_events():
    base = Schedule.plan(100, 10, 0.5)
    events = [Replan(0, 100), Replan(20, 120), Replan(90, 110)]
    at = {step: replay(events, step, 10, 0.5) for step in (19, 50, 95)}
    assert at[19] == base
    assert at[50] == base.replanned(20, 120)
    assert at[95] == base.replanned(20, 120).replanned(90, 110)


def test_before_the_first_plan_a_run_only_warms_up():
    assert [replay([Replan(5, 100)], step, 10, 0.5).factor(step) for step in (0, 4)] == [0.1, 0.5]


def test_a_run_made_longer_by_hand_has_the_rate_of_the_longer_run():
    events = [Replan(0, 100), Replan(100, 400, is_fresh=True)]
    assert replay(events, 100, 10, 0.5) == Schedule.plan(400, 10, 0.5)
    waiting = [Replan(0, 100), Replan(100, ENDLESS), Replan(104, 400)]
    assert replay(waiting, 102, 10, 0.5).factor(102) == 1
    assert replay(waiting, 104, 10, 0.5) == Schedule.plan(400, 10, 0.5)
