"""Model folders: found, verified, loaded."""

import shutil

import pytest
import torch

from utils.errors import CheckpointError
from utils.model.checkpoints import find_checkpoint, load_model


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def test_a_checkpoint_loads_in_plain_transformers_with_the_same_logits(checkpoint_dir):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = load_model(checkpoint_dir)
    plain = AutoModelForCausalLM.from_pretrained(checkpoint_dir)
    ids = AutoTokenizer.from_pretrained(checkpoint_dir)("some text", return_tensors="pt").input_ids
    assert torch.equal(plain(ids).logits, loaded.model(ids).logits)
    assert loaded.template.name == "chatml" and loaded.context_length == 128
    assert loaded.model.generation_config.eos_token_id == [2, 5]
    assert loaded.model.config.tie_word_embeddings


def test_a_run_folder_means_its_final_checkpoint(checkpoint_dir):
    assert find_checkpoint(checkpoint_dir.parent) == checkpoint_dir


def test_without_a_final_one_the_newest_good_step_is_taken(checkpoint_dir, tmp_path):
    for step in (2, 10):
        shutil.copytree(checkpoint_dir, tmp_path / f"step_{step}")
    assert find_checkpoint(tmp_path).name == "step_10"
    flip_a_bit(tmp_path / "step_10" / "model.safetensors")
    assert find_checkpoint(tmp_path).name == "step_2"


def test_a_flipped_bit_is_found_by_name(checkpoint_dir, tmp_path):
    copy = shutil.copytree(checkpoint_dir, tmp_path / "copy")
    flip_a_bit(copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: sha256 differs"):
        load_model(copy)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_no_checkpoint_is_one_line(tmp_path, make):
    make(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"no checkpoint") as caught:
        load_model(tmp_path / "none")
    assert "\n" not in str(caught.value)


def test_a_foreign_folder_that_is_no_model_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "nothing-known"}')
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_model(tmp_path)


def test_a_missing_checkpoint_names_the_runs_beside_it(tmp_path):
    for run in ("nano", "nano.20261121-101500"):
        (tmp_path / run / "final").mkdir(parents=True)
        (tmp_path / run / "final" / "config.json").touch()
    with pytest.raises(CheckpointError) as error:
        find_checkpoint(tmp_path / "tiny")
    assert str(error.value).endswith(f"pass --model_path (there is {tmp_path / 'nano'})")
