"""When a run is stuck, and where it then ends."""

import pytest

from utils.training.early_stopping import is_stuck, stopped_total
from utils.training.schedule.plan import EARLY_STOP, Plan
from utils.training.schedule.schedule import ENDLESS, Schedule


@pytest.mark.parametrize(
    ("bits", "patience", "min_delta", "expected"),
    [
        ([3.0, 2.0, 1.0], 1, 0.0, False),
        ([3.0, 2.0, 2.0], 1, 0.0, True),  # equal is no improvement
        ([3.0, 2.0, 2.1, 1.9], 2, 0.0, False),  # one worse, then better
        ([3.0, 2.0, 2.1, 2.2], 2, 0.0, True),
        ([2.0, 1.99, 1.98, 1.97], 3, 0.05, True),  # creeping
        ([2.0, 1.99, 1.98, 1.94], 3, 0.05, False),  # the fourth is 0.06 below the first
        ([], 1, 0.0, False),
    ],
)
def test_patience_counts_validations_that_are_no_better(bits, patience, min_delta, expected):
    seen = [(10 * number, value) for number, value in enumerate(bits, start=1)]
    assert is_stuck(seen, patience, min_delta) is expected


def test_on_the_plateau_the_decay_begins_at_once():
    schedule = Schedule.plan(1000, 50, 0.6)
    assert schedule.phase(40) == "warmup" and schedule.phase(200) == "stable"
    total = stopped_total(schedule, 200)
    assert total == 500  # 200 are the 40 % before the decay of a run of 500
    after = schedule.replanned(200, total)
    assert after.decay_start == 200 and after.factor(200) == 1.0
    assert after.factor(350) == pytest.approx(0.5) and after.factor(500) == 0


def test_in_the_decay_the_run_ends_where_it_is():
    schedule = Schedule.plan(1000, 50, 0.6)
    assert schedule.phase(400) == "decay"
    assert stopped_total(schedule, 700) == 700
    assert stopped_total(Schedule.plan(1000, 50, 1.0), 100) == 100


def test_a_stop_holds_until_the_run_is_made_longer_by_hand(tmp_path):
    plan = Plan(tmp_path / "plan.json", 10, 0.6)
    plan.record("plan", 0, total=1000, is_fresh=True)
    assert plan.early_stop() is None
    plan.record(EARLY_STOP, 200, total=500)
    assert plan.early_stop() == 500 and plan.total(200) == 500 and plan.total(199) == 1000
    plan.record("extend", 500, total=ENDLESS)
    assert plan.early_stop() is None
