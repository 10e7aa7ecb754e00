"""The time box: simulated machines, and plans that are replayed."""

import random
from itertools import pairwise

import pytest

from utils.errors import BudgetError, ConfigError
from utils.files import write_json
from utils.training.schedule.events import checked_event
from utils.training.schedule.plan import CALIBRATION_STEPS, Plan, StepBudget, read_events


class SimulatedClock:
    """A clock that is moved by hand."""

    def __init__(self, now=5.0):
        self.now = now

    def elapsed_s(self):
        return self.now


def simulate(budget_s, step_s, *, evaluation_s=1.0, save_s=1.0):
    """Train in a box on a machine whose step takes `step_s(now)`; return (end, steps, plan)."""
    clock = SimulatedClock()
    box = StepBudget(budget_s, clock, evaluation_s, save_s, startup_s=5.0)
    plan = Plan(None, 100, 0.6, is_writer=False)
    step, since = 0, 0
    while True:
        total = plan.total(step)
        if total is None:
            wanted = box.first_plan(step) if step >= CALIBRATION_STEPS else None
        else:
            wanted = box.replan(step, total)
        if wanted is not None:
            plan.record("plan", step, total=wanted)
        total = plan.total(step)
        if total is not None and step >= total:
            break
        seconds = step_s(clock.now)
        clock.now += seconds
        box.measured(seconds, total or 100)
        step, since = step + 1, since + 1
        if total and since > total / 6:
            clock.now, since = clock.now + evaluation_s, 0
    return clock.now + evaluation_s + save_s, step, plan


MACHINES = {
    "steady": lambda now: 0.5,
    "slower and slower": lambda now: 0.3 + now / 600,
    "faster": lambda now: 0.8 if now < 100 else 0.3,
    "suddenly half as fast": lambda now: 0.3 if now < 200 else 0.6,
    "noisy": lambda now: 0.4 * random.Random(now).choice([0.7, 1, 1, 1, 1.5, 3]),
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("budget_s", [120, 300, 900])
def test_the_box_is_kept_and_used(machine, budget_s):
    end_s, steps, plan = simulate(budget_s, MACHINES[machine])
    assert 0.93 * budget_s <= end_s <= budget_s
    assert plan.schedule(steps).factor(steps) == pytest.approx(0, abs=0.02)
    assert len(plan.events) <= 60


@pytest.mark.parametrize("machine", MACHINES)
def test_the_rate_jumps_at_no_replan(machine):
    _, steps, plan = simulate(300, MACHINES[machine])
    factors = [plan.schedule(step).factor(step) for step in range(CALIBRATION_STEPS + 60, steps)]
    assert max(abs(a - b) for a, b in pairwise(factors)) < 0.05


def test_a_box_too_small_says_what_it_needs():
    box = StepBudget(20, SimulatedClock(12.0), 2.0, 2.0)
    box.measured(1.0, 100)
    with pytest.raises(BudgetError, match=r"0\.333 min is too small .* --max_minutes 0\.\d"):
        box.first_plan(4)


def test_saves_between_steps_are_planned_too():
    box = StepBudget(100, SimulatedClock(0.0), 0.0, 1.0, save_every_steps=10)
    rare = StepBudget(100, SimulatedClock(0.0), 0.0, 1.0)
    for one in (box, rare):
        one.measured(0.1, 100)
    assert box.steps_left() == pytest.approx(rare.steps_left() / 2, abs=1)


def test_the_plan_is_on_the_disk_before_it_takes_effect_and_is_replayed(tmp_path):
    plan = Plan(tmp_path / "plan.json", 10, 0.5)
    plan.record("plan", 4, total=100)
    saved = list(plan.events)
    plan.record("replan", 30, total=200)
    again = Plan(tmp_path / "plan.json", 10, 0.5)
    again.load(saved, step=20)
    assert again.events == plan.events and again.planned_until == 30
    assert [again.total(step) for step in (3, 4, 29, 30)] == [None, 100, 100, 200]
    assert again.schedule(35) == plan.schedule(35)


def test_a_damaged_plan_file_leaves_the_one_of_the_checkpoint(tmp_path, caplog):
    (tmp_path / "plan.json").write_text('{"events": [')
    plan = Plan(tmp_path / "plan.json", 10, 0.5)
    plan.load([{"event": "plan", "step": 0, "total": 50}], step=20)
    assert plan.total(20) == 50 and "damaged" in caplog.text


def test_windows_leave_out_what_was_skipped(tmp_path):
    plan = Plan(tmp_path / "plan.json", 2, 0.5)
    assert plan.windows(3, 8) == [(0, 24)]
    plan.record("skip", 1, rows=8)
    plan.record("skip", 3, rows=16)
    assert plan.windows(1, 8) == [(0, 8)]
    assert plan.windows(3, 8) == [(0, 8), (16, 32)]
    assert plan.windows(4, 8) == [(0, 8), (16, 32), (48, 56)]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"event": "skip", "step": 3}, "skip without rows"),
        ({"step": 3}, "without a name"),
        ({"event": "plan", "step": 3, "total": -1}, "no count"),
        ({"event": "plan", "step": True, "total": 9}, "no count"),
        ("plan", "without a name"),
    ],
)
def test_an_event_that_says_too_little_is_refused(event, reason, tmp_path):
    with pytest.raises(ValueError, match=reason):
        checked_event(event)
    write_json(tmp_path / "plan.json", {"format": 1, "events": [event]})
    with pytest.raises(ConfigError, match="holds no plan"):
        read_events(tmp_path)


def test_a_replay_keeps_what_it_decided_itself_and_can_be_resumed(tmp_path):
    recorded = [{"event": "plan", "step": 4, "total": 20}]
    plan = Plan(tmp_path / "plan.json", 2, 0.5)
    plan.record("fast_paths", 0, paths={"compiled": False})
    plan.follow(recorded, 0)
    assert plan.total(9) == 20 and plan.find("fast_paths") is not None
    again = Plan(tmp_path / "plan.json", 2, 0.5)
    again.load(plan.events, step=6)
    again.follow(recorded, 6)
    assert again.events == plan.events
    with pytest.raises(ConfigError, match="step 6 was not reached"):
        again.follow([{"event": "plan", "step": 4, "total": 30}], 6)


def test_going_back_forgets_later_replans_only(tmp_path):
    plan = Plan(tmp_path / "plan.json", 2, 0.5)
    for step, total in ((4, 100), (50, 110), (90, 95)):
        plan.record("plan" if step == 4 else "replan", step, total=total)
    plan.record("skip", 80, rows=8)
    plan.leave(60)
    assert plan.total(95) == 110 and plan.planned_until == 50 and plan.all("skip")
