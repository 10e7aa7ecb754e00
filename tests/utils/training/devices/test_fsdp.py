"""FSDP2 on one process gives what the plain model gives; several are in test_processes.py."""

import pytest
import torch

from utils.config.pretrain import PretrainConfig
from utils.model.architecture import build_model
from utils.training.devices.fsdp import is_sharded, own_rows, shard, whole, with_weights
from utils.training.step.loss import language_model_loss
from utils.training.step.optimizer import Optimizers, clip_gradients

TOY = dict(n_layer=2, d_model=16, n_head=2, d_ff=32, vocab_size=60, sequence_length=16)


def trained(cfg, *, sharded):
    """Return (losses, norms, weights) of a few steps."""
    model = build_model(cfg)
    if sharded:
        shard(model, torch.device("cpu"), 1)
    optimizers = Optimizers.build(model, cfg)
    losses, norms = [], []
    for step in range(4):
        draw = torch.Generator().manual_seed(step)
        loss = language_model_loss(model, torch.randint(60, (3, 16), generator=draw))
        loss.backward()
        norms.append(clip_gradients(model, 0.5).item())
        optimizers.step(1.0)
        losses.append(loss.item())
    weights = {name: whole(p.detach()) for name, p in model.named_parameters()}
    return losses, norms, weights


@pytest.mark.parametrize("optimizer", ["normuon", "muon", "adamw"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_sharded_model_learns_what_a_plain_one_does(group_of_one, optimizer, tied):
    cfg = PretrainConfig(**TOY, optimizer=optimizer, tie_embeddings=tied, muon_learning_rate=0.002)
    plain, spread = trained(cfg, sharded=False), trained(cfg, sharded=True)
    assert spread[0] == pytest.approx(plain[0], abs=1e-5)
    assert spread[1] == pytest.approx(plain[1], rel=1e-4)
    assert list(spread[2]) == list(plain[2])
    for name, weight in plain[2].items():
        torch.testing.assert_close(spread[2][name], weight, atol=1e-5, rtol=0)


def test_weights_outside_the_blocks_are_whole_while_a_function_runs(group_of_one):
    model = build_model(PretrainConfig(**TOY))
    plain = model.lm_head.weight.detach().clone()
    shard(model, torch.device("cpu"), 1)
    assert is_sharded(model)
    inside = with_weights(model, lambda m: type(m.lm_head.weight.detach()))
    assert inside is torch.Tensor
    assert torch.equal(whole(model.lm_head.weight.detach()), plain)
    assert own_rows(model.lm_head.weight) == (0, 60)


def test_a_plain_model_passes_through():
    model = build_model(PretrainConfig(**TOY))
    assert with_weights(model, lambda m, x: (m, x), 3) == (model, 3)
    assert own_rows(torch.zeros(5, 2)) == (0, 5) and own_rows(torch.tensor(1.0)) == (0, 1)
