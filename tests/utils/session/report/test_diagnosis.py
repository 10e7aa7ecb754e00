import json

from utils.session.report.diagnosis import diagnose
from utils.session.runner import start_session


def test_an_empty_folder_is_told_the_first_steps(tmp_path):
    found = dict(diagnose(tmp_path, tmp_path / "runs"))
    assert "make prepare" in found["no prepared data"]
    assert "session-quick" in found["no checkpoint"]


def test_an_unfinished_run_is_named_with_its_remedy(tmp_path):
    run = tmp_path / "checkpoints" / "pretrain" / "tiny"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"status": "interrupted"}))
    found = dict(diagnose(tmp_path, tmp_path / "runs"))
    assert found[f"{run} is interrupted"] == "make resume"


def test_a_debug_session_has_no_box_and_ends_with_advice(bench, capsys):
    config = bench.config(name="debug", minutes=None, stages=["check", "preflight"])
    session = start_session(config, bench.tools)
    assert bench.calls == ["check", "preflight"]
    assert session.summary["minutes_budget"] is None
    assert "no prepared data: make prepare" in capsys.readouterr().out
