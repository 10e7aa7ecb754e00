import os
import time

import psutil
import pytest

from utils.errors import BudgetError, Interrupted
from utils.evaluation.timebox import TimeBox
from utils.stage import stop_request


def minutes_since_start() -> float:
    return (time.time() - psutil.Process(os.getpid()).create_time()) / 60


def test_no_box_never_ends():
    box = TimeBox(None)
    assert box.begin() is None
    assert box.check(0.5) is None  # neither raises


def test_the_box_counts_from_the_start_of_the_process():
    TimeBox(minutes_since_start() + 1).begin()
    with pytest.raises(BudgetError, match=r"no time left in the box of 0\.001 minutes"):
        TimeBox(0.001).begin()


def test_a_part_that_will_not_fit_is_ended_early():
    box = TimeBox(minutes_since_start() + 1)
    box.begin()
    box._part_started_s -= 10  # 10 s for 5 % of the work: 190 s more, 55 are left
    with pytest.raises(BudgetError, match=r"it would take 190 s more, 5\d s are left"):
        box.check(0.05)
    box.check(0.5)


def test_a_signal_stops_the_part(monkeypatch):
    monkeypatch.setattr(stop_request, "signal_number", 15)
    with pytest.raises(Interrupted):
        TimeBox(None).check(0.0)
