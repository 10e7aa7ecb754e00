import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from utils.errors import BudgetError, ConfigError, LumiError
from utils.session.runner import Runner, StageFailed, start_session
from utils.session.state import budget
from utils.session.state.display import Display
from utils.session.state.folder import Session

ALL = ["prepare", "samples", "pretrain", "sft", "dpo", "evaluate"]


def only_session(bench) -> Path:
    (folder,) = (bench.folder / "sessions" / "runs").iterdir()
    return folder


def test_a_session_runs_all_stages_in_its_box_and_leaves_its_records(bench, capsys):
    started = time.monotonic()
    session = start_session(bench.config(), bench.tools)
    wall_minutes = (time.monotonic() - started) / 60
    assert bench.calls == [*ALL, "answers"]
    summary = json.loads((session.folder / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["minutes_budget"] == 12
    assert abs(summary["minutes_used"] - wall_minutes) < 0.02
    assert [s["name"] for s in summary["stages"]] == ["measure", *ALL, "report"]
    assert {s["status"] for s in summary["stages"]} == {"finished"}
    assert summary["pretrain"]["parameters"] == 8400000
    assert summary["pretrain"]["bigram_bpb"] < summary["pretrain"]["unigram_bpb"]
    assert summary["sft"] == {
        "heldout_loss_before": 3.0,
        "heldout_loss_after": 1.2,
        "stop_rate": 0.97,
    }
    assert summary["dpo"]["heldout_accuracy_after"] == 0.8
    assert summary["evaluation"]["preferences"]["measures"]["accuracy"]["count"] == 60
    log = (session.folder / "session.log").read_text()
    assert "pretrain begins" in log
    captured = capsys.readouterr()
    assert "[3/6] pretrain  planned" in captured.err
    assert "min left in the time box" in captured.err
    assert "make serve" in captured.out
    assert captured.out.count("held-out question") == 6
    assert (session.folder / "report.html").is_file()


def test_every_training_stage_gets_a_box_and_they_fit_together(bench):
    session = start_session(bench.config(), bench.tools)
    given = [bench.minutes[stage] for stage in ("pretrain", "sft", "dpo", "evaluate")]
    assert all(minutes > 0.5 for minutes in given)
    assert bench.minutes["pretrain"] < 12
    events = json.loads((session.folder / "plan.json").read_text())["events"]
    first = next(event for event in events if event["event"] == "plan")
    assert sum(first["seconds"].values()) <= 12 * 60 - 15 - 0.03 * 720
    kinds = [event["event"] for event in events]
    assert kinds.index("plan") < kinds.index("start")
    assert "replan" in kinds


@pytest.mark.parametrize(
    ("how", "reason"),
    [("fail", "the corpus is empty: give it text"), ("crash", "KeyError: 'boom'")],
)
def test_the_first_failing_stage_ends_the_session_and_is_named(bench, how, reason):
    bench.order = {"pretrain": how}
    with pytest.raises(StageFailed) as caught:
        start_session(bench.config(), bench.tools)
    assert str(caught.value) == f"session failed in step 3 of 6: pretrain (exit 1): {reason}"
    assert bench.calls == ["prepare", "samples", "pretrain"]
    summary = json.loads((only_session(bench) / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert "step 3 of 6: pretrain" in summary["error"]
    assert [s["status"] for s in summary["stages"][3:6]] == ["failed", "waiting", "waiting"]
    assert "step 3 of 6: pretrain" in (only_session(bench) / "report.html").read_text()


def test_a_stage_that_exits_0_without_a_result_has_failed(bench):
    bench.order = {"sft": "nothing"}
    with pytest.raises(StageFailed, match=r"step 4 of 6: sft left no result: .*run.json not found"):
        start_session(bench.config(), bench.tools)


def test_a_box_too_small_is_refused_with_the_minimum_and_leaves_no_folder(bench):
    with pytest.raises(BudgetError, match=r"time box of 1 min is too small.*SESSION_MINUTES=(\d+)"):
        start_session(bench.config(minutes=1), bench.tools)
    assert not (bench.folder / "sessions").exists()


def test_a_missing_corpus_is_one_line_before_anything_starts(bench):
    with pytest.raises(ConfigError, match="nowhere: there is no such file or folder"):
        start_session(bench.config(source="nowhere"), bench.tools)
    assert bench.calls == []


def test_a_stage_that_outlives_the_box_is_stopped_and_named(bench, monkeypatch):
    monkeypatch.setattr(budget, "MARGIN_S", 1.0)
    bench.order = {"evaluate": "hang"}
    (bench.folder / "checkpoints/dpo").mkdir(parents=True)
    (bench.folder / "checkpoints/dpo/run.json").write_text("{}")
    session = Session.create(bench.config(stages=["evaluate"], minutes=2), {})
    session.plan["costs"] = {"fixed": {"evaluate": 1.0, "report": 1.0}, "least": {}}
    session.start_clock(already_s=120 - 9)
    with pytest.raises(BudgetError, match="evaluate ran past the end of the time box"):
        Runner(session, Display(), bench.tools).run()
    assert (bench.folder / "stopped-evaluate").is_file()
    assert session.used_s < 125


def test_settings_of_one_stage_reach_only_that_stage(bench, monkeypatch):
    monkeypatch.setenv("PRETRAIN_LEARNING_RATE", "1e-3")
    monkeypatch.setenv("BATCH_SIZE", "77")
    session = start_session(bench.config(), bench.tools)
    assert session.plan["overrides"] == {"pretrain": {"learning_rate": "1e-3"}}
    assert session.plan["model"]["settings"]["batch_size"] == 16
    assert session.plan["model"]["settings"]["learning_rate"] == "1e-3"


def test_a_second_session_is_refused_while_one_runs(bench):
    session = Session.create(bench.config(), {})
    session.start_clock()
    session.state["pid"] = os.getppid()
    session.state["born"] = psutil.Process(os.getppid()).create_time()
    session.beat(force=True)
    with pytest.raises(LumiError, match=rf"{session.folder.name} is running"):
        start_session(bench.config(), bench.tools)


DRIVER = """
import json, sys
from pathlib import Path
sys.path[:0] = [{root!r}, {tests!r}]
from conftest import Bench
from utils.config.session import SessionConfig
from utils.session.runner import start_session
from utils.stage import run_stage, stop_request

bench = Bench(Path({folder!r}), Path({prepared!r}))
bench.order = {order!r}

def main(cfg):
    stop_request.install()
    start_session(bench.config(), bench.tools)

sys.exit(run_stage(main, SessionConfig, []))
"""


def start_driver(bench, order):
    root = Path(__file__).resolve().parents[3]
    driver = bench.folder / "driver.py"
    driver.write_text(
        DRIVER.format(
            root=str(root),
            tests=str(Path(__file__).parent),
            folder=str(bench.folder),
            prepared=str(bench.prepared),
            order=order,
        )
    )
    process = subprocess.Popen(
        [sys.executable, str(driver)], cwd=root, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    until = time.monotonic() + 30
    while not (bench.folder / "hanging").exists():
        assert time.monotonic() < until and process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    return process


def wait_for(condition, seconds=15):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_stage_save_and_marks_the_session_interrupted(bench, number):
    process = start_driver(bench, {"pretrain": "hang"})
    process.send_signal(number)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 75
    assert b"make resume" in stderr
    assert (bench.folder / "stopped-pretrain").is_file()
    assert Session.open(only_session(bench)).status == "interrupted"


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux")
def test_kill_9_of_the_runner_lets_its_stage_save_and_leaves_no_orphan(bench):
    process = start_driver(bench, {"pretrain": "hang"})
    children = psutil.Process(process.pid).children()
    process.kill()
    process.communicate()
    wait_for(lambda: (bench.folder / "stopped-pretrain").is_file())
    assert psutil.wait_procs(children, timeout=10)[1] == []
    session = Session.open(only_session(bench))
    assert session.status == "interrupted"
    assert session.used_s > 0


def test_a_failed_session_exits_1(bench):
    process = start_driver(bench, {"sft": "hang", "pretrain": ""})
    process.kill()
    process.communicate()
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-m", "utils.session.runner", "--minutes", "0.5"]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "too small" in result.stderr
    assert "Traceback" not in result.stderr
