"""Data settings: checked before anything heavy is imported."""

import shutil
import subprocess
import sys

import pytest

from utils.config.pretrain import PretrainConfig
from utils.errors import ConfigError, DataError
from utils.files import read_json, write_json
from utils.training.inputs import find_inputs


def test_the_vocabulary_follows_the_tokenizer(prepared_dir):
    inputs = find_inputs(PretrainConfig(data_path=prepared_dir, vocab_size=32768))
    assert inputs.cfg.vocab_size == 600 and inputs.data_dirs == (prepared_dir,)


def test_a_tokenizer_larger_than_the_embedding_names_the_remedy(prepared_dir):
    with pytest.raises(ConfigError, match="pass --vocab_size 600"):
        find_inputs(PretrainConfig(data_dir=prepared_dir, vocab_size=500))


def test_two_folders_must_share_one_tokenizer(prepared_dir, tmp_path):
    other = shutil.copytree(prepared_dir, tmp_path / "other")
    manifest = read_json(other / "manifest.json")
    write_json(other / "manifest.json", manifest | {"tokenizer_sha256": "f" * 64})
    with pytest.raises(DataError, match="has tokenizer ffffffffffff"):
        find_inputs(PretrainConfig(data_dirs=(prepared_dir, other)))


def test_each_folder_needs_a_weight(prepared_dir):
    cfg = PretrainConfig(data_dirs=(prepared_dir, prepared_dir), data_weights=(1, 2, 3))
    with pytest.raises(ConfigError, match=r"3 data_weights for 2 data_dirs"):
        find_inputs(cfg)


def test_data_that_moved_is_the_same_data(prepared_dir, tmp_path):
    moved = shutil.copytree(prepared_dir, tmp_path / "moved")
    here, there = (find_inputs(PretrainConfig(data_dir=place)) for place in (prepared_dir, moved))
    assert here.identity == there.identity


def test_looking_at_the_data_imports_no_torch():
    code = "import sys, utils.training.inputs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
