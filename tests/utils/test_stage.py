"""Exit codes and messages of every command, seen from outside."""

import os
import signal
import subprocess
import sys

import pytest

from utils.config.base import StageConfig
from utils.errors import DataError, Interrupted
from utils.stage import StopRequest, run_stage


class Toy(StageConfig):
    """A stage with one setting."""

    size: int = 1
    """How large."""


def fail_with(error):
    def main(cfg):
        raise error

    return main


def test_exit_codes(capsys):
    assert run_stage(lambda cfg: None, Toy, []) == 0
    assert run_stage(fail_with(DataError("no data: run it")), Toy, []) == 1
    assert run_stage(fail_with(Interrupted("saved")), Toy, []) == 75
    assert run_stage(lambda cfg: None, Toy, ["--size", "many"]) == 1
    assert run_stage(lambda cfg: None, Toy, ["--sise", "2"]) == 2


def test_a_mistyped_flag_is_one_line_with_the_nearest_name(capsys):
    assert run_stage(lambda cfg: None, Toy, ["--sise", "2"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.endswith("unknown argument --sise: did you mean '--size'?")
    assert "\n" not in error


PROGRAM = """
import sys, time
from utils.config.base import StageConfig
from utils.errors import Interrupted
from utils.stage import run_stage, stop_request

class Toy(StageConfig):
    '''Toy.'''

def main(cfg):
    stop_request.install()
    print("ready", flush=True)
    while not stop_request:
        time.sleep(0.01)
    raise Interrupted("saved at step 3: run `make resume`")

sys.exit(run_stage(main, Toy, []))
"""


def test_sigterm_lets_the_stage_save_and_exits_with_75(root):
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    os.kill(child.pid, signal.SIGTERM)
    _, error = child.communicate(timeout=30)
    assert child.returncode == 75
    assert "saved at step 3" in error and "Traceback" not in error


def test_a_signal_that_the_launcher_repeats_is_one_request(monkeypatch):
    request = StopRequest()
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        request.install()
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert request
        monkeypatch.setattr("utils.stage.ECHO_S", 0.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)
