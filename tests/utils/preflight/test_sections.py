"""What can be checked here, and why the rest cannot."""

import os
import shutil

import pytest

from utils.config.preflight import PreflightConfig
from utils.errors import CheckpointError, ConfigError
from utils.preflight.sections import architecture, parts


def found(root, **settings):
    cfg = PreflightConfig(model_config_path=root / "config/tiny.json", **settings)
    return {part.name: part.missing for part in parts(cfg)}


def test_without_anything_only_the_signal_is_checked(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    missing = found(root)
    assert missing["training signal"] == ""
    assert "run `make prepare`" in missing["prepared data"]
    assert "run `make pretrain-tiny`" in missing["checkpoint"]
    assert "neither checkpoint nor data" in missing["conversations"]


def test_the_latest_stage_and_its_newest_run_are_found(
    root, tmp_path, monkeypatch, checkpoint_dir, prepared_dir
):
    monkeypatch.chdir(tmp_path)
    for name, age_s in (("pretrain/tiny/final", 0), ("pretrain/small/final", 1000)):
        shutil.copytree(checkpoint_dir, tmp_path / "checkpoints" / name)
        run = (tmp_path / "checkpoints" / name).parent
        os.utime(run, (2e9 - age_s, 2e9 - age_s))
    shutil.copytree(prepared_dir, tmp_path / "data/processed/docs")
    missing = found(root)
    assert missing["checkpoint"] == missing["prepared data"] == ""
    assert "make create-sample-datasets" in missing["conversations"]


def test_the_vocabulary_follows_the_data(root, prepared_dir):
    assert architecture(root / "config/tiny.json", None).vocab_size == 32768
    assert architecture(root / "config/tiny.json", prepared_dir).vocab_size == 600


def test_what_was_named_must_be_there(root, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        found(root, model_path=tmp_path / "nothing")
    with pytest.raises(ConfigError, match="cannot read config file"):
        parts(PreflightConfig(model_config_path=tmp_path / "none.json"))
