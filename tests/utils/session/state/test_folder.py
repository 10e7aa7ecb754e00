import os
import time

import pytest

from utils.errors import DataError
from utils.session.state.folder import Session, list_sessions


def test_time_used_survives_a_crash_and_adds_up_over_resumes(bench):
    session = Session.create(bench.config(), {})
    session.start_clock(already_s=100.0)
    session.beat(force=True)
    again = Session.open(session.folder)
    assert again.used_s == pytest.approx(100, abs=1)
    again.start_clock(already_s=20.0)
    assert again.used_s == pytest.approx(120, abs=1)
    assert again.left_s == pytest.approx(600, abs=1)


def test_the_clock_runs(bench):
    session = Session.create(bench.config(), {})
    session.start_clock()
    time.sleep(0.1)
    assert 0.1 <= session.used_s < 5


def test_a_running_session_without_its_process_was_interrupted(bench):
    session = Session.create(bench.config(), {})
    session.start_clock()
    assert Session.open(session.folder).status == "running"
    session.state["born"] = 1.0
    session.beat(force=True)
    assert Session.open(session.folder).status == "interrupted"


def test_a_session_of_another_host_lives_as_long_as_it_beats(bench):
    session = Session.create(bench.config(), {})
    session.start_clock()
    session.state["host"] = "a-container-that-was-removed"
    session.beat(force=True)
    assert Session.open(session.folder).status == "running"
    old = time.time() - 400
    os.utime(session.folder / "state.json", (old, old))
    assert Session.open(session.folder).status == "interrupted"


def test_two_sessions_in_one_second_get_folders_of_their_own(bench):
    folders = {Session.create(bench.config(), {}).folder for _ in range(3)}
    assert len(folders) == 3
    assert len(list_sessions(bench.folder / "sessions" / "runs")) == 3


def test_damaged_records_are_an_error_that_names_the_file(bench):
    session = Session.create(bench.config(), {})
    (session.folder / "summary.json").write_text("{")
    with pytest.raises(DataError, match=r"summary\.json"):
        Session.open(session.folder)


def test_events_are_on_the_disk_when_they_take_effect(bench):
    session = Session.create(bench.config(), {})
    session.event("replan", seconds={"sft": 3})
    events = Session.open(session.folder).plan["events"]
    assert (events[0]["event"], events[0]["seconds"]) == ("replan", {"sft": 3})
