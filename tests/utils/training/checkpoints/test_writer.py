"""Jobs in the background: in order, one at a time, no error lost."""

import threading
import time

import pytest

from utils.errors import DiskFull, Interrupted
from utils.training.checkpoints.writer import Writer


def failing():
    raise DiskFull("disk full")


def test_jobs_run_in_order_beside_the_caller():
    done, gate = [], threading.Event()
    with Writer() as writer:
        for number in range(3):
            writer.submit(lambda number=number: (gate.wait(5), done.append(number)))
        assert writer.is_busy and done == []
        gate.set()
        writer.wait()
        assert done == [0, 1, 2] and not writer.is_busy


@pytest.mark.parametrize("ask", ["check", "wait", "submit"])
def test_an_error_is_raised_once_where_the_writer_is_asked_next(ask):
    with Writer() as writer:
        writer.submit(failing)
        while writer.is_busy:
            time.sleep(0.001)
        with pytest.raises(DiskFull):
            writer.submit(failing) if ask == "submit" else getattr(writer, ask)()
        writer.check()
        writer.wait()


def test_jobs_behind_a_failed_one_are_dropped():
    gate, done = threading.Event(), []
    with Writer() as writer:
        writer.submit(lambda: (gate.wait(5), failing()))
        writer.submit(lambda: done.append(1))
        writer.submit(lambda: done.append(2))
        gate.set()
        with pytest.raises(DiskFull):
            writer.wait()
        assert done == [] and not writer.is_busy


def test_leaving_waits_and_raises():
    done = []
    with Writer() as writer:
        writer.submit(lambda: (time.sleep(0.05), done.append(1)))
    assert done == [1]
    with pytest.raises(DiskFull), Writer() as writer:
        writer.submit(failing)


def test_an_error_beside_another_one_is_told(caplog):
    with pytest.raises(Interrupted), Writer() as writer:
        writer.submit(failing)
        raise Interrupted("saved")
    assert "disk full" in caplog.text


def test_a_second_signal_waits_for_nothing():
    gate, done = threading.Event(), []
    with pytest.raises(KeyboardInterrupt), Writer() as writer:
        writer.submit(lambda: (gate.wait(20), done.append(1)))
        raise KeyboardInterrupt
    assert done == []  # left while the job is still under way
    gate.set()
