"""State in shares: read by any number of processes, whole, and without pickles."""

import json
import pickletools

import pytest
import torch
from safetensors.torch import load_file, save_file

from utils.config.pretrain import PretrainConfig
from utils.errors import CheckpointError
from utils.model.architecture import build_model
from utils.training.checkpoints.shares import (
    Share,
    StoredState,
    read_state,
    state_tensors,
    whole_weights,
)
from utils.training.devices.fsdp import shard, whole
from utils.training.step.loss import language_model_loss
from utils.training.step.optimizer import Optimizers

TOY = dict(n_layer=1, d_model=16, n_head=2, d_ff=32, vocab_size=60, sequence_length=16)


@pytest.fixture
def three_shares(tmp_path):
    """A (7, 2) matrix in shares of 3, 3 and 1 rows, and a number held by the first."""
    matrix = torch.arange(14.0).view(7, 2)
    for rank, (start, stop) in enumerate([(0, 3), (3, 6), (6, 7)]):
        tensors = {"model/w": matrix[start:stop].contiguous()}
        slices = {"model/w": {"shape": [7, 2], "start": start}}
        if rank == 0:
            tensors["optimizer/w:step"] = torch.tensor(5.0)
            slices["optimizer/w:step"] = {"shape": [], "start": 0}
        path = tmp_path / f"shard_{rank:05d}.safetensors"
        save_file(tensors, path, metadata={"slices": json.dumps(slices)})
    return tmp_path, matrix


@pytest.mark.parametrize("rows", [(0, 7), (2, 4), (3, 6), (5, 7), (6, 7), (7, 7)])
def test_any_rows_are_found_in_the_files_that_hold_them(three_shares, rows):
    folder, matrix = three_shares
    stored = StoredState.open(folder)
    assert stored.shapes == {"model/w": (7, 2), "optimizer/w:step": ()}
    assert torch.equal(stored.rows("model/w", *rows), matrix[slice(*rows)])
    assert stored.rows("optimizer/w:step", 0, 1) == torch.tensor(5.0)


def test_a_missing_share_is_named(three_shares):
    folder, _ = three_shares
    (folder / "shard_00001.safetensors").unlink()
    with pytest.raises(CheckpointError, match="lacks rows 3 to 7 of model/w"):
        StoredState.open(folder).rows("model/w", 0, 7)


def trained(sharded, optimizer="normuon"):
    cfg = PretrainConfig(**TOY, optimizer=optimizer)
    model = build_model(cfg)
    if sharded:
        shard(model, torch.device("cpu"), 1)
    optimizers = Optimizers.build(model, cfg)
    language_model_loss(model, torch.arange(16)[None]).backward()
    optimizers.step(1.0)
    return model, optimizers


@pytest.mark.parametrize("optimizer", ["normuon", "muon", "adamw"])
@pytest.mark.parametrize("reader_is_sharded", [True, False])
def test_what_was_written_is_read_spread_or_not(
    group_of_one, tmp_path, optimizer, reader_is_sharded
):
    model, optimizers = trained(True, optimizer)
    state = state_tensors(model, optimizers)
    share = Share.of(state, 0)
    expected = {name: whole(value).clone() for name, value in state.items()}
    language_model_loss(model, torch.arange(16)[None]).backward()
    optimizers.step(1.0)  # a share is a copy: training may go on before it is written
    share.write(tmp_path)
    with pytest.raises(ValueError):
        list(pickletools.genops((tmp_path / "shard_00000.safetensors").read_bytes()))
    reader, reading = trained(reader_is_sharded, optimizer)
    weights, moments = read_state(tmp_path, reader)
    missing, unexpected = reader.load_state_dict(weights, strict=False)
    assert missing == ["lm_head.weight"] and not unexpected
    reading.load(moments)
    found = state_tensors(reader, reading)
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.equal(whole(found[name]), value), name


def test_an_ordinary_checkpoint_is_read_by_sharded_models(group_of_one, tmp_path):
    plain, optimizers = trained(False)
    save_file(dict(plain.named_parameters()), tmp_path / "model.safetensors")
    save_file(optimizers.tensors(), tmp_path / "optimizer.safetensors")
    spread, spread_optimizers = trained(True)
    weights, moments = read_state(tmp_path, spread)
    spread.load_state_dict(weights, strict=False)
    spread_optimizers.load(moments)
    gathered = whole_weights(spread, keep=True)
    for name, value in load_file(tmp_path / "model.safetensors").items():
        assert torch.equal(gathered[name], value)
    assert whole_weights(spread, keep=False) == {}
