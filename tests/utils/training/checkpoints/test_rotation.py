"""Which checkpoints stay."""

import json

import pytest

from utils.config.pretrain import PretrainConfig
from utils.errors import BudgetError
from utils.training.checkpoints import rotation
from utils.training.checkpoints.rotation import (
    check_disk,
    clear_leftovers,
    folder_bytes,
    leave_later,
    make_room,
    rotate,
)


def make(run, *names, size=0):
    for name in names:
        (run / name).mkdir(parents=True)
        step = name.removeprefix("step_") if name.startswith("step_") else "50"
        (run / name / "state.json").write_text(json.dumps({"step": int(step)}))
        (run / name / "weights").write_bytes(b"0" * size)


def names(run):
    return sorted(path.name for path in run.iterdir())


def test_the_last_ones_and_every_nth_stay(tmp_path):
    make(tmp_path, *(f"step_{step}" for step in (2, 9, 10, 100, 20, 30)))
    rotate(tmp_path, 2, 10)
    assert names(tmp_path) == ["step_10", "step_100", "step_2", "step_20", "step_30", "step_9"]
    make(tmp_path, "step_101")
    rotate(tmp_path, 2, 10)
    assert names(tmp_path) == ["step_10", "step_100", "step_101", "step_20", "step_30", "step_9"]
    rotate(tmp_path, 2)
    assert names(tmp_path) == ["step_100", "step_101"]


def test_what_comes_after_the_step_that_was_gone_back_to_is_renamed(tmp_path, caplog):
    make(tmp_path, "step_8", "step_50", "step_51", "final", "best")
    leave_later(tmp_path, 50)
    assert names(tmp_path) == ["best", "final", "left-step_51", "step_50", "step_8"]
    leave_later(tmp_path, 9)
    left = ["left-best", "left-final", "left-step_50", "left-step_51", "step_8"]
    assert names(tmp_path) == left and "of a run that was left" in caplog.text


def test_a_link_in_the_place_of_a_checkpoint_is_removed_and_not_what_it_leads_to(tmp_path):
    make(tmp_path / "elsewhere", "precious")
    make(tmp_path / "run", "step_2", "step_3")
    (tmp_path / "run" / "step_1").symlink_to(tmp_path / "elsewhere" / "precious")
    rotate(tmp_path / "run", 2)
    assert names(tmp_path / "run") == ["step_2", "step_3"]
    assert (tmp_path / "elsewhere" / "precious" / "weights").is_file()


def test_leftovers_of_a_kill_are_cleared(tmp_path):
    make(tmp_path, ".tmp-step_3", ".old-best", ".old-final", "final")
    (tmp_path / ".tmp-run.json").write_text("{")
    clear_leftovers(tmp_path)
    assert names(tmp_path) == ["best", "final"]


def test_a_file_under_two_names_is_counted_once(tmp_path):
    make(tmp_path, "final", size=1000)
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "weights").hardlink_to(tmp_path / "final" / "weights")
    assert folder_bytes(tmp_path / "final", tmp_path / "best") == 1000 + len('{"step": 50}')


def budget(gigabytes, **settings):
    return PretrainConfig(disk_budget_gb=gigabytes, **settings)


def test_under_a_budget_the_oldest_go_first_and_the_newest_stays(tmp_path):
    make(tmp_path, "step_1", "step_2", "step_60", "best", size=10_000)
    make_room(tmp_path, 10_000, budget(0.0000502))
    assert names(tmp_path) == ["best", "step_1", "step_2", "step_60"]
    make_room(tmp_path, 10_000, budget(0.0000402))
    assert names(tmp_path) == ["best", "step_2", "step_60"]
    with pytest.raises(BudgetError, match=r"take 2e-05 GB, another one 1e-05 .* is 2e-05: raise"):
        make_room(tmp_path, 10_000, budget(0.00002))
    assert names(tmp_path) == ["best", "step_60"]


def test_every_nth_is_not_given_to_the_budget(tmp_path):
    make(tmp_path, "step_10", "step_20", "step_21", size=10_000)
    with pytest.raises(BudgetError, match="--disk_budget_gb is 1e-05"):
        make_room(tmp_path, 10_000, budget(0.00001, keep_every=10))
    assert names(tmp_path) == ["step_10", "step_20", "step_21"]


def test_too_little_space_is_told_before_anything_is_written(tmp_path, monkeypatch):
    make(tmp_path, "step_1")
    monkeypatch.setattr(rotation, "free_bytes", lambda place: 1_000_000)
    make_room(tmp_path, 900_000, PretrainConfig())
    with pytest.raises(BudgetError, match=r"needs 1 MB, .* has 1 MB free: .*make resume"):
        make_room(tmp_path, 990_000, PretrainConfig())
    assert names(tmp_path) == ["step_1"]


def test_a_run_whose_fewest_checkpoints_do_not_fit_is_refused(tmp_path, monkeypatch):
    cfg = PretrainConfig(n_layer=1, d_model=1024, n_head=8, d_ff=1024, vocab_size=32768)
    one = 4 * (2 * 32768 * 1024 + 7 * 1024**2 + 3 * 1024 + 32768 * 1024 + 7 * 1024**2 + 6 * 1024)
    assert one < rotation.checkpoint_bytes(cfg, "muon") < 1.1 * one
    with pytest.raises(BudgetError, match=r"--disk_budget_gb 1.5 is too small: .* take 1\.\d+ GB"):
        check_disk(cfg.model_copy(update={"disk_budget_gb": 1.5}), tmp_path)
    check_disk(cfg.model_copy(update={"disk_budget_gb": 2.0}), tmp_path)
    monkeypatch.setattr(rotation, "free_bytes", lambda place: one)
    with pytest.raises(BudgetError, match="free some space, or choose another --output_dir"):
        check_disk(cfg, tmp_path)
