"""Processes give results in order, and end with whoever started them."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from utils.data.work.workers import Workers
from utils.errors import Interrupted, LumiError
from utils.stage import stop_request

PARENT = """
import sys, time
from utils.data.work.workers import Workers
if __name__ == "__main__":
    with Workers(2) as workers:
        results = workers.map(time.sleep, [0] * 8 + [60] * 8)
        for _ in range(2):
            next(results)
        sys.stdout.write("ready\\n"); sys.stdout.flush()
        time.sleep(60)
"""


def test_results_come_in_order_from_any_number_of_processes():
    with Workers(2) as workers:
        assert list(workers.map(abs, range(0, -50, -1))) == list(range(50))
        assert list(workers.map(abs, [-3])) == [3]
    with Workers(1) as workers:
        assert list(workers.map(abs, range(0, -50, -1))) == list(range(50))


def test_few_batches_start_no_process():
    with Workers(2) as workers:
        assert set(workers.map(_pid, range(3))) == {os.getpid()}


def _pid(_):
    return os.getpid()


def test_a_killed_worker_is_one_line():
    with Workers(2) as workers, pytest.raises(LumiError, match="smaller --num_workers"):
        list(workers.map(os._exit, range(9, 20)))


def test_a_stop_request_ends_the_work(monkeypatch):
    monkeypatch.setattr(stop_request, "signal_number", signal.SIGTERM)
    with Workers(1) as workers, pytest.raises(Interrupted, match="run it again"):
        list(workers.map(abs, range(10)))


def test_workers_die_with_a_killed_parent(root, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(root)}
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert parent.stdout.readline() == "ready\n"
    children = psutil.Process(parent.pid).children(recursive=True)
    assert len(children) >= 2
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while any(_alive(child) for child in children):
        assert time.monotonic() < deadline, "orphans are left"
        time.sleep(0.05)


def _alive(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
