"""What a reader of run folders answers: is it finished, whose is it, what did it measure."""

import json

import pytest

from utils.errors import DataError, LumiError
from utils.run_folder import RunFolder, read_metrics


def write(folder, **record):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(record))
    return RunFolder.read(folder)


def test_a_finished_run_gives_its_numbers(tmp_path):
    numbers = {"val_bpb": 1.5, "steps": 9}
    run = write(tmp_path, status="finished", summary=numbers, settings={"a": 1})
    assert (run.is_finished, run.settings, run.finished_numbers(["val_bpb"])) == (
        True, {"a": 1}, {"val_bpb": 1.5},
    )  # fmt: skip
    with pytest.raises(DataError, match=r"run.json: the summary lacks mfu"):
        run.finished_numbers(["val_bpb", "mfu"])


def test_an_unfinished_run_gives_none(tmp_path):
    run = write(tmp_path, status="failed", summary={"val_bpb": 1.5})
    with pytest.raises(LumiError, match="status 'failed', not finished"):
        run.finished_numbers(["val_bpb"])


def test_an_old_or_empty_record_has_no_settings_and_no_owner(tmp_path):
    run = write(tmp_path, argv=None)
    assert (run.status, run.is_finished, run.settings, run.numbers) == (None, False, {}, {})
    assert (run.flags, run.is_of(tmp_path), run.plan_events()) == ([], False, [])


def test_a_session_owns_the_runs_whose_flags_name_its_folder(tmp_path):
    flags = ["--config", "sessions/runs/20260101-quick/pretrain_config.json", "--seed", 1]
    run = write(tmp_path, argv=flags)
    assert run.flags[-1] == "1"
    assert run.is_of(tmp_path / "20260101-quick") and not run.is_of(tmp_path / "20260102-quick")


def test_a_missing_or_damaged_record_is_an_error_a_user_can_read(tmp_path):
    for text in (None, "{", "[1]"):
        if text is not None:
            (tmp_path / "run.json").write_text(text)
        with pytest.raises(DataError, match=r"run\.json"):
            RunFolder.read(tmp_path)


def test_runs_that_were_moved_aside_are_not_listed(tmp_path):
    for name in ("tiny", "nano", "tiny.20260101-101010"):
        write(tmp_path / name)
    assert [folder.name for folder in RunFolder.all_in(tmp_path)] == ["nano", "tiny"]
    assert RunFolder.is_in(tmp_path / "tiny") and not RunFolder.is_in(tmp_path)


def test_plan_and_metrics_are_read_without_torn_lines(tmp_path):
    run = write(tmp_path)
    (tmp_path / "plan.json").write_text('{"events": [{"event": "plan", "total": 9}]}')
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n[2]\n{"step": 3}\n{"st')
    assert run.plan_events() == [{"event": "plan", "total": 9}]
    assert read_metrics(tmp_path) == [{"step": 1}, {"step": 3}]
    assert read_metrics(tmp_path / "none") == []
