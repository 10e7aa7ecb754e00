"""A backup holds what counts, whole and verified, or is not there."""

import json

import pytest

from utils.config.machine import BackupConfig
from utils.errors import BudgetError, DataError
from utils.files import atomic_folder, verify_folder
from utils.session import backup


@pytest.fixture
def workplace(tmp_path):
    (tmp_path / "config/datasets").mkdir(parents=True)
    (tmp_path / "config/tiny.json").write_text("{}")
    (tmp_path / "config/datasets/mine.json").write_text("{}")
    for name in ("pretrain/tiny/final", "pretrain/tiny/step_10", "sft/final", "sft/.tmp-final"):
        with atomic_folder(tmp_path / "checkpoints" / name, kind="checkpoint") as folder:
            (folder / "model.safetensors").write_bytes(name.encode() * 100)
    (tmp_path / "checkpoints/sft/adapter").mkdir()
    (tmp_path / "checkpoints/sft/adapter/adapter_config.json").write_text("{}")
    return tmp_path


def settings(place):
    return BackupConfig(
        config_dir=place / "config",
        checkpoints_dir=place / "checkpoints",
        backups_dir=place / "backups",
    )


def copied(place):
    (folder,) = (place / "backups").iterdir()
    verify_folder(folder)
    return folder, sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def test_configurations_final_models_and_adapters_are_copied(workplace, capsys):
    backup.main(settings(workplace))
    folder, names = copied(workplace)
    assert names == [
        "checkpoints/pretrain/tiny/final/manifest.json",
        "checkpoints/pretrain/tiny/final/model.safetensors",
        "checkpoints/sft/adapter/adapter_config.json",
        "checkpoints/sft/final/manifest.json",
        "checkpoints/sft/final/model.safetensors",
        "config/datasets/mine.json",
        "config/tiny.json",
        "manifest.json",
    ]
    verify_folder(folder / "checkpoints/sft/final")
    assert json.loads((folder / "manifest.json").read_text())["kind"] == "backup"
    out = capsys.readouterr().out
    assert str(folder) in out
    assert "7 files, verified" in out


def test_two_backups_in_one_second_do_not_meet(workplace):
    backup.main(settings(workplace))
    backup.main(settings(workplace))
    assert len(list((workplace / "backups").iterdir())) == 2


def test_a_damaged_checkpoint_is_named_and_left_out(workplace, caplog):
    model = workplace / "checkpoints/sft/final/model.safetensors"
    model.write_bytes(b"X" + model.read_bytes()[1:])
    backup.main(settings(workplace))
    _, names = copied(workplace)
    assert "checkpoints/sft/final/model.safetensors" not in names
    assert "checkpoints/pretrain/tiny/final/model.safetensors" in names
    assert "not backed up: " in caplog.text
    assert "sha256 differs" in caplog.text


def test_without_a_checkpoint_there_is_one_line_and_no_folder(tmp_path):
    (tmp_path / "config").mkdir()
    with pytest.raises(DataError, match="nothing to back up"):
        backup.main(settings(tmp_path))
    assert not (tmp_path / "backups").exists()


def test_a_disk_too_small_is_refused_before_anything_is_written(workplace, monkeypatch):
    monkeypatch.setattr(backup, "free_bytes", lambda place: 1000)
    with pytest.raises(BudgetError, match=r"needs .* and .* has 1 kB free"):
        backup.main(settings(workplace))
    assert not (workplace / "backups").exists()
