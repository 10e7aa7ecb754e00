"""Progress in words, for pipes and logs."""

import logging
import subprocess
import sys

from utils.log import Task, progress


def test_a_line_tells_share_and_time_left():
    task = Task("reading", total=200)
    task.advance(50)
    assert task.line("3 MB/s").startswith("reading 25% (50 of 200), 0 s, about 0 s left, 3 MB/s")


def test_what_was_done_before_counts_for_the_share_only(monkeypatch):
    task = Task("work", total=100, unit="steps", done=80, _started=100.0)
    task.done = 90
    monkeypatch.setattr("time.monotonic", lambda: 105.0)
    assert task.line() == "work 90% (90 of 100 steps), 5 s, 2 steps/s, about 5 s left"


def test_a_line_comes_sooner_at_a_mark_and_a_note_is_made_only_for_a_line(caplog, monkeypatch):
    now, made = [100.0], []
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    task = Task("work", total=None, _started=100.0, _last_shown=100.0)
    with caplog.at_level(logging.INFO):
        for seconds, is_mark in ((101, True), (106, False), (107, True), (113, True), (121, False)):
            now[0] = seconds
            task.advance(1, lambda: made.append(now[0]) or "note", is_mark=is_mark)
    assert made == [107, 113] and len(caplog.records) == 2


def test_without_a_total_the_line_counts():
    task = Task("documents", total=None)
    task.advance(1234)
    assert task.line().startswith("documents 1,234, 0 s")


def test_what_is_counted_is_shown_with_its_rate(monkeypatch):
    task = Task("reading", total=20, unit="MB", _started=100.0)
    task.done = 5
    monkeypatch.setattr("time.monotonic", lambda: 104.0)
    assert task.line("x") == "reading 25% (5 of 20 MB), 4 s, 1.25 MB/s, about 12 s left, x"


def test_in_a_pipe_lines_come_now_and_then(caplog, monkeypatch):
    monkeypatch.setattr("utils.log.PLAIN_INTERVAL_S", 0.0)
    with caplog.at_level(logging.INFO), progress("work", total=2) as task:
        task.advance()
        task.advance(note="loss 2.5")
    assert [record.message.split(",")[0] for record in caplog.records] == [
        "work 50% (1 of 2)",
        "work 100% (2 of 2)",
    ]
    assert caplog.records[-1].message.endswith("loss 2.5")


def test_only_the_main_process_speaks_and_stdout_stays_free(root):
    code = (
        "import logging; from utils.log import setup_logging; setup_logging();"
        "logging.getLogger('x').info('hello')"
    )
    for rank, expected in (("0", True), ("1", False)):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=root, capture_output=True, text=True,
            env={"RANK": rank},
        )  # fmt: skip
        assert done.stdout == "" and ("hello" in done.stderr) is expected
