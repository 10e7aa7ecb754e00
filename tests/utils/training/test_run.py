"""The global batch of a run, on one process or many."""

import pytest

from utils.config.pretrain import PretrainConfig
from utils.files import write_json
from utils.training.run import global_rows, lasting_rows

BATCH = dict(batch_size=4, gradient_accumulation_steps=3)


@pytest.mark.parametrize(
    ("changes", "processes", "rows"),
    [
        ({}, 1, 12),
        ({}, 4, 48),
        (dict(reduce="canonical"), 4, 12),
        (dict(global_batch_size=20), 4, 20),
        (dict(global_batch_size=20, reduce="canonical"), 1, 20),
    ],
)
def test_flags_count_for_each_process_unless_the_sum_is_canonical(
    changes, processes, rows, monkeypatch
):
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    assert global_rows(PretrainConfig(**BATCH, **changes)) == rows


def record(folder, status="interrupted", **changes):
    cfg = PretrainConfig(**BATCH | dict(global_batch_size=24) | changes)
    write_json(folder / "run.json", {"status": status, "settings": cfg.resolved()})


@pytest.mark.parametrize("named", [True, False])
def test_the_same_command_on_more_processes_keeps_the_global_batch(
    named, tmp_path, monkeypatch, caplog
):
    record(tmp_path)  # begun by two processes
    monkeypatch.setenv("WORLD_SIZE", "4")
    cfg = PretrainConfig(**BATCH, resume_from_checkpoint=tmp_path if named else None)
    assert lasting_rows(cfg, tmp_path) == 24
    assert "the global batch stays 24 rows" in caplog.text and "48" in caplog.text


def test_another_batch_or_a_finished_run_gives_what_the_flags_say(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert lasting_rows(PretrainConfig(**BATCH), tmp_path) == 48  # nothing is there
    record(tmp_path, status="finished")
    assert lasting_rows(PretrainConfig(**BATCH), tmp_path) == 48
    record(tmp_path, batch_size=2)
    assert lasting_rows(PretrainConfig(**BATCH), tmp_path) == 48
    record(tmp_path)
    assert lasting_rows(PretrainConfig(**BATCH, global_batch_size=8), tmp_path) == 8
