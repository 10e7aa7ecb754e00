import shutil

import pytest
import torch

from utils.chat.templates import TEMPLATES
from utils.config.sft import SFTConfig
from utils.errors import CheckpointError
from utils.files import write_manifest
from utils.finetuning.lora import (
    adapter_of,
    base_checkpoint,
    find_base,
    load_adapter,
    new_adapter,
    row_logits,
    start_chat_tokens,
)

IDS = [2, 40, 50, 60]


def test_chat_tokens_of_a_base_model_start_from_the_end_of_text(project):
    base = base_checkpoint(project / "checkpoints" / "pretrain" / "toy")
    assert start_chat_tokens(base, TEMPLATES["chatml"])
    weight = base.model.get_input_embeddings().weight
    rows = base.tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert torch.equal(weight[rows[0]], weight[2])
    assert torch.equal(weight[rows[1]], weight[2])
    assert not start_chat_tokens(base, TEMPLATES["instruct"])


def test_chat_tokens_of_a_fine_tuned_model_are_left_alone(sft_run):
    loaded = base_checkpoint(sft_run)
    before = loaded.model.get_input_embeddings().weight.clone()
    assert not start_chat_tokens(loaded, TEMPLATES["chatml"])
    assert torch.equal(loaded.model.get_input_embeddings().weight, before)


def test_a_fresh_adapter_changes_nothing(sft_run):
    loaded = base_checkpoint(sft_run)
    before = row_logits(loaded.model, IDS)
    adapted = new_adapter(loaded, SFTConfig(), train_embedding=True)
    assert torch.equal(row_logits(adapted.base.model, IDS), before)


def test_target_modules_that_do_not_exist_are_refused(sft_run):
    cfg = SFTConfig.build({"target_modules": ["no_such_layer"]})
    with pytest.raises(CheckpointError, match="correct --target_modules"):
        new_adapter(base_checkpoint(sft_run), cfg, train_embedding=False)


def test_an_adapter_finds_its_base_after_the_project_has_moved(project, sft_run, tmp_path):
    before = row_logits(load_adapter(sft_run / "adapter").base.model, IDS)
    moved = tmp_path / "elsewhere"
    shutil.copytree(project / "checkpoints", moved)
    adapter = adapter_of(moved / "sft")
    assert find_base(adapter).resolve() == (moved / "pretrain" / "toy" / "final").resolve()
    assert torch.equal(row_logits(load_adapter(adapter).base.model, IDS), before)


def test_an_adapter_without_its_base_says_what_to_do(sft_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(sft_run, tmp_path / "a" / "b" / "c" / "sft")
    with pytest.raises(CheckpointError, match=r"is missing: put it back, or pass --model_path"):
        find_base(tmp_path / "a" / "b" / "c" / "sft" / "adapter")


def test_an_adapter_on_a_changed_base_is_refused(project, sft_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(project / "checkpoints", tmp_path / "checkpoints")
    base = tmp_path / "checkpoints" / "pretrain" / "toy" / "final"
    write_manifest(base, kind="another")
    with pytest.raises(CheckpointError, match="has changed since"):
        find_base(tmp_path / "checkpoints" / "sft" / "adapter")


def test_another_tokenizer_is_refused(project, tmp_path):
    folder = tmp_path / "final"
    shutil.copytree(project / "checkpoints" / "pretrain" / "toy" / "final", folder)
    with (folder / "tokenizer.model").open("ab") as file:
        file.write(b"\x00")
    write_manifest(folder)
    with pytest.raises(CheckpointError, match="not the tokenizer the model was trained with"):
        base_checkpoint(folder)
