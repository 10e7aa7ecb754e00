"""Checkpoints: whole or not at all, damage named, no pickle."""

import errno
import json
import pickletools

import pytest
import torch

from utils.config.pretrain import PretrainConfig
from utils.errors import BudgetError, CheckpointError, LumiError
from utils.model.architecture import build_model
from utils.training import checkpoint as module
from utils.training.checkpoint import (
    TrainState,
    link_checkpoint,
    load_checkpoint,
    remove_old_steps,
    resumable,
    save_checkpoint,
)
from utils.training.optimizer import Optimizers

TOY = dict(n_layer=1, d_model=16, n_head=2, d_ff=32, vocab_size=600, sequence_length=64)


@pytest.fixture
def parts():
    cfg = PretrainConfig(**TOY)
    model = build_model(cfg)
    optimizers = Optimizers.build(model, cfg)
    model(torch.arange(4, 20)[None], labels=torch.arange(4, 20)[None]).loss.backward()
    optimizers.step(1.0)
    return model, optimizers


@pytest.fixture
def save(parts, tokenizer_dir):
    def run(folder, step=3):
        state = TrainState(step=step, tokens=99, events=[{"event": "plan", "step": 0, "total": 9}])
        card = {"stage": "pretrain", "template": None, "tokenizer_sha256": "0"}
        save_checkpoint(folder, *parts, state, tokenizer_dir=tokenizer_dir, card=card)
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


def test_too_little_space_is_told_before_anything_is_written(save, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "free_bytes", lambda place: 1000)
    with pytest.raises(BudgetError, match=r"needs 2 MB, .* has 0 MB free"):
        save(tmp_path / "run" / "step_3")
    assert not (tmp_path / "run").exists()


def test_a_disk_that_fills_up_leaves_the_earlier_checkpoint(save, tmp_path, monkeypatch):
    save(tmp_path / "step_3")

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(LumiError, match="disk full") as caught:
        save(tmp_path / "step_4", 4)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["step_3"]
    assert next(resumable(tmp_path)).name == "step_3"


def test_rotation_keeps_the_newest(tmp_path):
    for step in (2, 10, 9, 100):
        (tmp_path / f"step_{step}").mkdir()
    remove_old_steps(tmp_path, 2, newest=10**6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_10", "step_100"]


def test_a_link_is_a_whole_checkpoint_of_its_own(parts, save, tmp_path):
    source = save(tmp_path / "final")
    link_checkpoint(source, tmp_path / "best")
    module.shutil.rmtree(source)
    assert load_checkpoint(tmp_path / "best", *parts).step == 3
    assert json.loads((tmp_path / "best" / "manifest.json").read_text())["step"] == 3
