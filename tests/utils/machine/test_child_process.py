import sys
import time

import psutil

from utils.machine.child_process import child_environment, run_child


def run(tmp_path, program, **options):
    lines: list[str] = []
    result = run_child(
        [sys.executable, "-c", program], tmp_path / "log", lines.append, cwd=tmp_path, **options
    )
    return result, lines


def test_every_line_is_shown_and_logged_also_an_unfinished_one(tmp_path):
    result, lines = run(tmp_path, "print('one'); print('two', end='')")
    assert (result.exit_code, lines) == (0, ["one", "two"])
    assert (tmp_path / "log").read_text() == "one\ntwo"


def test_the_last_error_line_wins_over_what_follows(tmp_path):
    program = "print('10:00:00 ERROR   a.b: bad value 3: use 4'); print('bye'); raise SystemExit(1)"
    result, _ = run(tmp_path, program)
    assert (result.exit_code, result.last_error) == (1, "bad value 3: use 4")


def test_a_traceback_ends_with_its_last_line(tmp_path):
    result, _ = run(tmp_path, "raise ValueError('odd')")
    assert result.last_error == "ValueError: odd"


def test_the_deadline_stops_a_child(tmp_path):
    deadline = time.monotonic() + 0.5
    result, _ = run(tmp_path, "import time; time.sleep(600)", deadline=deadline)
    assert result.stopped_by == "deadline"


def test_what_a_child_started_ends_with_it(tmp_path):
    program = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid)"
    )
    _, lines = run(tmp_path, program)
    time.sleep(0.3)
    assert (
        not psutil.pid_exists(int(lines[0])) or psutil.Process(int(lines[0])).status() == "zombie"
    )


def test_the_environment_of_a_stage_keeps_what_the_user_has_set():
    found = child_environment({"TORCHINDUCTOR_CACHE_DIR": "/mine", "PATH": "/bin"})
    assert found["TORCHINDUCTOR_CACHE_DIR"] == "/mine"
    assert found["PATH"] == "/bin"
    assert found["TOKENIZERS_PARALLELISM"] == "false"
