"""One process writes a folder, others are told who does, and a crash leaves nothing in the way."""

import errno
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from utils.errors import LumiError
from utils.lock import DRIFT_S, Owner, lock_owner, one_writer

HOLD = """
import os, sys, time
from pathlib import Path
from utils.errors import LumiError
from utils.lock import one_writer
while time.time() < float(sys.argv[2]):
    pass
try:
    with one_writer(Path(sys.argv[1])):
        if "fork" in sys.argv and os.fork() == 0:
            os.close(1)
            time.sleep(20)
            os._exit(0)
        print("held", flush=True)
        time.sleep(60)
except LumiError as error:
    print(error, flush=True)
"""


@pytest.fixture
def start(root, tmp_path):
    """Return a function that starts a process which takes the lock and says what came of it."""
    started = []

    def run(*more, at=0.0):
        command = [sys.executable, "-c", HOLD, str(tmp_path / "run"), str(at), *more]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def lock_file(tmp_path, **changes):
    """Write the lock file that a killed run has left and return its path."""
    lock = tmp_path / ".lock-run"
    held = {"pid": 2**22 + 1, "host": socket.gethostname(), "born": 1.0, **changes}
    lock.write_text(json.dumps(held))
    return lock


def test_a_second_writer_is_refused_while_the_first_one_lives(tmp_path, start, caplog):
    holder = start()
    assert holder.stdout.readline() == "held\n"
    refused = pytest.raises(LumiError, match=rf"being written by process {holder.pid} on ")
    with refused, one_writer(tmp_path / "run"):
        pass
    assert lock_owner(tmp_path / ".lock-run").pid == holder.pid  # who was refused changed nothing
    holder.kill()
    holder.wait()
    with one_writer(tmp_path / "run"):  # the lock file of the dead process is still there
        assert lock_owner(tmp_path / ".lock-run") == Owner.this_process()
    assert not (tmp_path / ".lock-run").exists()
    assert f"taking over the lock of process {holder.pid}" in caplog.text


@pytest.mark.parametrize("left_behind", [False, True])
def test_of_two_starts_at_once_one_works_and_the_other_is_told_who_does(
    tmp_path, start, left_behind
):
    if left_behind:
        lock_file(tmp_path)
    at = time.time() + 2
    both = [start(at=at), start(at=at)]
    words = [process.stdout.readline() for process in both]
    assert words.count("held\n") == 1
    winner = both[words.index("held\n")]
    assert f"written by process {winner.pid} on " in words[1 - words.index("held\n")]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_keep_the_lock_of_a_killed_parent(tmp_path, start):
    holder = start("fork")
    assert holder.stdout.readline() == "held\n"
    children = psutil.Process(holder.pid).children()
    holder.kill()
    holder.wait()
    with one_writer(tmp_path / "run"):
        assert [child.is_running() for child in children] == [True]
    children[0].kill()


def test_a_holder_whose_birth_seems_another_now_still_holds_it(tmp_path, start):
    holder = start()
    assert holder.stdout.readline() == "held\n"
    lock_file(tmp_path, pid=holder.pid, born=1.0)  # the clock was set, and with it all births
    with pytest.raises(LumiError, match="being written"), one_writer(tmp_path / "run"):
        pass


def test_the_lock_of_another_host_is_never_taken_over(tmp_path):
    lock = lock_file(tmp_path, host="another-machine")
    before = lock.read_bytes()
    with (
        pytest.raises(LumiError, match=r"on another-machine: .*remove"),
        one_writer(tmp_path / "run"),
    ):
        pass
    assert lock.read_bytes() == before


@pytest.mark.parametrize("content", ["", "torn", "[]", "{}", '{"pid": "x"}'])
def test_a_torn_lock_file_is_no_hindrance(tmp_path, content):
    (tmp_path / ".lock-run").write_text(content)
    with one_writer(tmp_path / "run"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_failed_writer_lets_go(tmp_path):
    with pytest.raises(KeyError), one_writer(tmp_path / "deep/run"):
        raise KeyError
    with one_writer(tmp_path / "deep/run"):
        assert lock_owner(tmp_path / "deep/.lock-run") == Owner.this_process()


def test_without_locks_of_the_system_the_named_process_counts(tmp_path, monkeypatch):
    import fcntl

    def flock(fd, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    parent = psutil.Process(os.getppid())
    lock_file(tmp_path, pid=parent.pid, born=parent.create_time())
    with pytest.raises(LumiError, match=f"process {parent.pid}"), one_writer(tmp_path / "run"):
        pass
    lock_file(tmp_path)
    with one_writer(tmp_path / "run"):
        assert lock_owner(tmp_path / ".lock-run") == Owner.this_process()
    assert not (tmp_path / ".lock-run").exists()


def test_a_process_is_known_by_its_birth_within_the_drift_of_the_clock():
    me = Owner.this_process()
    for drift_s, is_alive in ((0.0, True), (1.0, True), (-1.0, True), (DRIFT_S + 1, False)):
        assert Owner(me.pid, me.host, me.born + drift_s).is_alive == is_alive
    assert not Owner(-1, me.host, me.born).is_alive and not Owner(2**70, me.host, 0.0).is_alive
    assert Owner(1, "another-machine", 0.0).is_alive
    assert Owner.read([]) is None and Owner.read({"pid": 1}) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    tmp_path.chmod(0o500)
    refused = pytest.raises(LumiError, match="choose another --output_dir")
    with refused, one_writer(Path(tmp_path / "run")):
        pass
