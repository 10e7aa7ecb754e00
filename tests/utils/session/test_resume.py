import json
import sys

import pytest
import torch
from safetensors.torch import load_file

from tests.utils.training import toy
from utils.config.session import ResumeConfig
from utils.errors import BudgetError, CheckpointError
from utils.session.resume import resume, resume_run, unfinished_runs
from utils.session.runner import StageFailed, start_session
from utils.session.state.folder import Session


def config(bench):
    return ResumeConfig.build(
        {
            "runs_dir": bench.folder / "sessions" / "runs",
            "checkpoints_dir": bench.folder / "checkpoints" / "pretrain",
        }
    )


def interrupted_in_pretrain(bench):
    """A session whose runner and stage died in pre-training."""
    bench.order = {"pretrain": "fail"}
    with pytest.raises(StageFailed):
        start_session(bench.config(), bench.tools)
    (folder,) = (bench.folder / "sessions" / "runs").iterdir()
    session = Session.open(folder)
    session.stage("pretrain").update(status="running", used=0.0)
    session.summary["status"] = "running"
    session.state["pid"] = 2**22 + 1
    session.state["segments"][-1]["seconds"] = 200.0
    session.save()
    run = bench.folder / "checkpoints" / "pretrain" / "tiny"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"status": "running", "argv": [str(folder)]}))
    (run / "metrics.jsonl").write_text(json.dumps({"step": 9, "time_s": 60.0, "loss": 3}) + "\n")
    bench.order = {}
    (bench.folder / "calls.txt").unlink()
    bench.minutes.clear()
    return folder


def test_a_session_goes_on_at_the_stage_that_was_cut_with_what_is_left_of_its_box(bench):
    folder = interrupted_in_pretrain(bench)
    resume(config(bench), bench.tools)
    assert bench.calls == ["pretrain", "sft", "dpo", "evaluate", "answers"]
    session = Session.open(folder)
    assert session.status == "finished"
    assert 200 < session.used_s < 300
    events = [event for event in session.plan["events"] if event["event"] == "resume"]
    assert events[0]["left_s"] == pytest.approx(720 - 200, abs=1)
    starts = [e for e in session.plan["events"] if e.get("stage") == "pretrain"]
    planned_min = starts[-1]["planned_s"] / 60
    # Stage 02 counts the 60 s that its own log says were used before.
    assert bench.minutes["pretrain"] == pytest.approx(planned_min + 1.0)
    assert session.stage("prepare")["status"] == "finished"


def test_a_failed_session_goes_on_when_the_cause_is_gone(bench):
    bench.order = {"sft": "fail"}
    with pytest.raises(StageFailed):
        start_session(bench.config(), bench.tools)
    bench.order = {}
    resume(config(bench), bench.tools)
    assert bench.calls.count("pretrain") == 1
    assert bench.calls.count("sft") == 2


def test_a_stage_that_ended_before_its_runner_could_note_it_is_not_run_again(bench):
    folder = interrupted_in_pretrain(bench)
    run = bench.folder / "checkpoints" / "pretrain" / "tiny"
    summary = {"parameters": 8, "tokens": 4096, "val_bpb": 1.25}
    record = {"status": "finished", "argv": [str(folder)], "summary": summary}
    (run / "run.json").write_text(json.dumps(record))
    resume(config(bench), bench.tools)
    assert bench.calls == ["sft", "dpo", "evaluate", "answers"]
    assert Session.open(folder).summary["pretrain"]["val_bpb"] == 1.25


@pytest.mark.parametrize("damage", ["replaced", "removed"])
def test_a_session_does_not_go_on_with_the_model_of_a_later_one(bench, damage):
    bench.order = {"dpo": "fail"}
    with pytest.raises(StageFailed):
        start_session(bench.config(), bench.tools)
    path = bench.folder / "checkpoints" / "sft" / "run.json"
    record = json.loads(path.read_text())
    path.unlink()
    if damage == "replaced":
        record["summary"]["heldout_loss_after"] = 0.9
        path.write_text(json.dumps(record))
    bench.order = {}
    (bench.folder / "calls.txt").unlink()
    with pytest.raises(CheckpointError, match=r"step sft of session .* start a new session"):
        resume(config(bench), bench.tools)
    assert bench.calls == []


def test_a_session_without_time_left_is_refused(bench):
    folder = interrupted_in_pretrain(bench)
    session = Session.open(folder)
    session.state["segments"][-1]["seconds"] = 730.0
    session.save()
    with pytest.raises(BudgetError, match="has used up its 12 min"):
        resume(config(bench), bench.tools)


def test_nothing_to_resume_is_one_line_and_success(run_module):
    result = run_module("utils.session.resume")
    assert result.returncode == 0
    assert result.stdout.startswith("nothing to resume")


def test_a_run_of_an_unfinished_session_is_not_resumed_on_its_own(bench):
    folder = interrupted_in_pretrain(bench)
    runs = bench.folder / "checkpoints" / "pretrain"
    assert unfinished_runs(runs, [Session.open(folder)]) == []
    assert [run.folder.name for run in unfinished_runs(runs, [])] == ["tiny"]


@pytest.mark.parametrize("status", ["interrupted", "running", "failed"])
def test_a_new_session_moves_an_unfinished_run_aside(bench, status):
    run = bench.folder / "checkpoints" / "pretrain" / "tiny"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"status": status, "argv": []}))
    start_session(bench.config(), bench.tools)
    aside = [path for path in run.parent.iterdir() if path.name.startswith("tiny.")]
    assert len(aside) == 1
    assert json.loads((aside[0] / "run.json").read_text())["status"] == status


STEPS = 10


@pytest.fixture
def killed_run(prepared_dir, tmp_path, monkeypatch):
    """A run of stage 02 that was cut after its eighth step, and its settings."""
    cfg = toy.settings(prepared_dir, tmp_path / "runs", max_steps=STEPS, save_steps=2)
    flags = [f"--{name}={value}" for name, value in toy.TOY.items() if not isinstance(value, bool)]
    flags += [f"--max_steps={STEPS}", "--cpu", "--no_compile", "--no_preflight"]
    flags += [f"--data_dir={prepared_dir}", f"--output_dir={tmp_path / 'runs'}"]
    monkeypatch.setattr(sys, "argv", ["02_pretrain.py", *flags])

    def cut(trainer):
        if trainer.state.step == 9:
            trainer.run.writer.wait()  # a KeyboardInterrupt drops what is not written yet
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy.train(cfg, cut)
    return cfg.output_dir / "tiny", cfg


def flip_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 8
    path.write_bytes(data)


def test_a_run_goes_on_from_its_newest_whole_checkpoint_and_says_what_it_passed_over(
    killed_run, tmp_path, run_module
):
    run, cfg = killed_run
    (run / "step_8" / "state.json").unlink()  # torn
    flip_bit(run / "step_6" / "optimizer.safetensors")
    (run / "step_4" / "manifest.json").write_text("{")
    done = run_module(
        "utils.session.resume", "--checkpoints_dir", run.parent, "--runs_dir", tmp_path / "none",
        env={"OMP_NUM_THREADS": str(torch.get_num_threads())},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for damage in ("step_8/state.json: missing", "step_6/optimizer.safetensors: sha256 differs",
                   "step_4/manifest.json: damaged"):  # fmt: skip
        assert f"skipping {run}/{damage}" in done.stderr
    assert "step_2 at step 2" in done.stderr
    whole = toy.train(cfg.model_copy(update={"output_dir": tmp_path / "whole"}))
    found = load_file(run / "final" / "model.safetensors")
    known = whole.model.state_dict()
    assert found and all(torch.equal(known[name], value) for name, value in found.items())


def test_a_run_whose_checkpoints_are_all_damaged_begins_again(killed_run, monkeypatch, caplog):
    folder, cfg = killed_run
    for path in folder.glob("*/model.safetensors"):
        flip_bit(path)
    (run,) = unfinished_runs(folder.parent, [])
    commands = []
    monkeypatch.setattr("os.execve", lambda program, command, environment: commands.append(command))
    resume_run(run)
    assert "--resume_from_checkpoint" not in commands[0]
    caplog.set_level("INFO")
    again = toy.train(cfg)
    assert len([line for line in caplog.text.splitlines() if "skipping" in line]) == 4
    assert "from its beginning" in caplog.text and again.state.step == STEPS


def test_a_run_keeps_what_it_was_started_with_when_a_default_has_changed(killed_run, monkeypatch):
    folder, _ = killed_run
    path = folder / "run.json"
    record = json.loads(path.read_text())
    older = dict(optimizer="muon", warmup_steps=7, betas=None, save_minutes=99.0)
    path.write_text(json.dumps(record | {"settings": record["settings"] | older}))
    (run,) = unfinished_runs(folder.parent, [])
    commands = []
    monkeypatch.setattr("os.execve", lambda program, command, environment: commands.append(command))
    resume_run(run)
    added = commands[0][2 + len(sys.argv[1:]) :]
    places = ["--data_dir", record["settings"]["data_dir"]]
    kept = ["--optimizer", "muon", "--warmup_steps", "7"]
    assert added == [*places, *kept, "--resume_from_checkpoint", str(folder)]
