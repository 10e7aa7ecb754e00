"""What runs is read from lock files and metrics, and a crash's leftovers are no run."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from utils.files import append_line
from utils.lock import one_writer
from utils.session.monitor import describe, last_metrics, look


def running(root):
    return [row.text for row in look(root) if row.name == "running"]


def test_nothing_runs(tmp_path):
    assert running(tmp_path) == ["no stage (no process holds a lock)"]
    assert [row.name for row in look(tmp_path)][-4:] == ["CPU", "memory", "disk", "running"]


def test_a_running_stage_shows_its_last_metrics(tmp_path):
    run = tmp_path / "checkpoints/pretrain/tiny"
    with one_writer(run):
        append_line(run / "metrics.jsonl", {"step": 40, "loss": 3.2171, "tokens_per_s": 5400.4})
        append_line(run / "metrics.jsonl", {"event": "sample", "step": 41, "text": "x"})
        (text,) = running(tmp_path)
    assert text.startswith(f"checkpoints/pretrain/tiny, process {os.getpid()} for ")
    assert text.endswith("step 40, loss 3.217, 5,400 tokens/s")
    assert running(tmp_path) == ["no stage (no process holds a lock)"]


def test_a_lock_whose_process_is_gone_is_no_run(tmp_path):
    lock = tmp_path / "data/processed/.lock-docs"
    lock.parent.mkdir(parents=True)
    held = {"pid": 2**22 + 1, "host": os.uname().nodename, "born": 1.0}
    lock.write_text(json.dumps(held))
    assert running(tmp_path) == ["no stage (no process holds a lock)"]
    lock.write_text("torn")
    assert running(tmp_path) == ["no stage (no process holds a lock)"]
    lock.write_text(json.dumps({**held, "host": "another-machine"}))
    assert "on another-machine" in running(tmp_path)[0]


def test_a_run_is_shown_though_the_clock_has_drifted(tmp_path):
    run = tmp_path / "checkpoints/pretrain/tiny"
    with one_writer(run):
        lock = run.with_name(".lock-tiny")
        held = json.loads(lock.read_text())
        lock.write_text(json.dumps(held | {"born": held["born"] + 1.0}))
        assert f"process {os.getpid()}" in running(tmp_path)[0]


def test_a_torn_last_line_is_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert last_metrics(path) == {"step": 1, "loss": 2.0}
    assert last_metrics(tmp_path / "none.jsonl") is None


def test_metrics_as_text():
    assert describe({"step": 7, "val_bpb": 1.4264, "time_s": 61.0}) == (
        "step 7, 1.426 bits per byte, 61 s"
    )


def test_in_a_pipe_it_shows_once_and_ends(run_module):
    result = run_module("utils.session.monitor")
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("running    no stage (no process holds a lock)\n")


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo terminal")
def test_on_a_terminal_ctrl_c_leaves_cleanly(tmp_path, root):
    import pty

    ours, theirs = pty.openpty()
    env = {**os.environ, "PYTHONPATH": str(root), "TERM": "xterm", "COLUMNS": "100"}
    command = [sys.executable, "-m", "utils.session.monitor", "--interval_s", "0.2"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=env, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # not ignored in a "&" job
    ) as process:  # fmt: skip
        seen, until = b"", time.monotonic() + 60
        while b"no stage" not in seen and time.monotonic() < until:
            seen += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        os.set_blocking(ours, False)
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == b""
    assert b"no stage" in seen
