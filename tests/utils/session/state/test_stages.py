from pathlib import Path

import pytest

from utils.errors import CheckpointError
from utils.session.state.stages import StageContext, stage_command


def context(bench, **values):
    return StageContext(bench.config(**values), bench.folder / "run", {"sft": {"r": 4}})


def test_a_box_becomes_max_minutes_and_own_settings_come_last(bench):
    command = stage_command("sft", context(bench), 3.5)
    assert command[-4:] == ["--max_minutes", "3.5", "--r", "4"]
    assert "--max_minutes" not in stage_command("sft", context(bench), None)


def test_the_users_own_data_set_is_used_instead_of_the_practice_set(bench):
    own = bench.folder / "mine.json"
    assert context(bench, sft_dataset=own).sft_dataset == own
    assert context(bench).sft_dataset == bench.folder / "run" / "data" / "sft_dataset.json"


def test_an_evaluation_takes_the_newest_kind_of_model_or_says_what_to_train(bench):
    evaluation = context(bench, stages=["evaluate"])
    with pytest.raises(CheckpointError, match="holds no model: train one"):
        _ = evaluation.model_path
    for name in ("pretrain/tiny", "sft"):
        run = bench.folder / "checkpoints" / name
        run.mkdir(parents=True)
        (run / "run.json").write_text("{}")
    assert evaluation.model_path == Path("checkpoints/sft")


def test_the_architecture_box_is_shared_among_the_sizes(bench):
    command = stage_command("architecture", context(bench), 20.0)
    assert command[-2:] == ["--max_seconds", "300.0"]
