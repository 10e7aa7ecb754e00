"""Checkpoints: whole or not at all, damage named, no pickle."""

import json
import pickletools
import shutil

import pytest
import torch

from tests.utils.training.saves import CARD, TOY, toy_parts
from utils.config.pretrain import PretrainConfig
from utils.errors import CheckpointError
from utils.model.architecture import build_model
from utils.model.checkpoints import description_files
from utils.training.checkpoints.state import (
    Content,
    TrainState,
    link_checkpoint,
    load_checkpoint,
    resumable,
    save_checkpoint,
)
from utils.training.step.optimizer import Optimizers


@pytest.fixture
def parts():
    return toy_parts()


@pytest.fixture
def save(parts, tokenizer_dir, tmp_path_factory):
    scratch = tmp_path_factory.mktemp("description") / "scratch"
    files = description_files(parts[0], scratch, tokenizer_dir=tokenizer_dir, card=CARD)

    def run(folder, step=3):
        state = TrainState(step=step, tokens=99, events=[{"event": "plan", "step": 0, "total": 9}])
        save_checkpoint(folder, Content.of(*parts, state), files)
        return folder

    return run


def test_what_is_saved_is_loaded(parts, save, tmp_path):
    folder = save(tmp_path / "step_3")
    cfg = PretrainConfig(**TOY)
    model = build_model(cfg, seed=7)
    optimizers = Optimizers.build(model, cfg)
    state = load_checkpoint(folder, model, optimizers)
    assert (state.step, state.tokens, state.events[0]["total"]) == (3, 99, 9)
    for left, right in zip(parts[0].parameters(), model.parameters(), strict=True):
        assert torch.equal(left, right)
    saved = parts[1].tensors()
    assert all(torch.equal(saved[name], value) for name, value in optimizers.tensors().items())


def test_no_file_is_a_pickle(save, tmp_path):
    for path in save(tmp_path / "step_3").iterdir():
        with pytest.raises(ValueError):
            list(pickletools.genops(path.read_bytes()))


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_flipped_bit_is_found_by_name(parts, save, tmp_path, name):
    folder = save(tmp_path / "step_3")
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=f"{name}: sha256 differs"):
        load_checkpoint(folder, *parts)


def test_the_newest_whole_checkpoint_comes_first_and_damaged_ones_are_named(save, tmp_path, caplog):
    for step in (2, 10, 30):
        save(tmp_path / f"step_{step}", step)
    (tmp_path / "step_30" / "state.json").write_text("{")
    assert [folder.name for folder in resumable(tmp_path)] == ["step_10", "step_2"]
    assert "step_30" in caplog.text


def test_another_shape_is_refused(save, tmp_path):
    folder = save(tmp_path / "step_3")
    cfg = PretrainConfig(**TOY | {"d_ff": 48})
    model = build_model(cfg)
    with pytest.raises(CheckpointError, match="does not fit this model"):
        load_checkpoint(folder, model, Optimizers.build(model, cfg))


def test_a_folder_without_state_cannot_be_resumed(checkpoint_dir, parts):
    with pytest.raises(CheckpointError, match="cannot be resumed"):
        load_checkpoint(checkpoint_dir, *parts)


def test_a_link_is_a_whole_checkpoint_of_its_own(parts, save, tmp_path):
    source = save(tmp_path / "final")
    link_checkpoint(source, tmp_path / "best")
    shutil.rmtree(source)
    assert load_checkpoint(tmp_path / "best", *parts).step == 3
    assert json.loads((tmp_path / "best" / "manifest.json").read_text())["step"] == 3
