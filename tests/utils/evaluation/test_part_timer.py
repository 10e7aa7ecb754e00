import pytest

from utils.errors import BudgetError, Interrupted
from utils.evaluation.part_timer import PartTimer
from utils.stage import stop_request
from utils.time_box import process_age_s


def minutes_since_start() -> float:
    return process_age_s() / 60


def test_no_box_never_ends():
    timer = PartTimer(None)
    assert timer.begin() is None
    assert timer.check(0.5) is None  # neither raises


def test_the_box_counts_from_the_start_of_the_process():
    PartTimer(minutes_since_start() + 1).begin()
    with pytest.raises(BudgetError, match=r"no time left in the time box of 0\.001 minutes"):
        PartTimer(0.001).begin()


def test_a_part_that_will_not_fit_is_ended_early():
    timer = PartTimer(minutes_since_start() + 1)
    timer.begin()
    timer._part_started_s -= 10  # 10 s for 5 % of the work: 190 s more, 55 are left
    with pytest.raises(BudgetError, match=r"it would take 190 s more, 5\d s are left"):
        timer.check(0.05)
    timer.check(0.5)


def test_a_signal_stops_the_part(monkeypatch):
    monkeypatch.setattr(stop_request, "signal_number", 15)
    with pytest.raises(Interrupted):
        PartTimer(None).check(0.0)
