"""Which parameter goes to which optimizer, and state by name."""

import pytest
import torch
from torch.optim import AdamW, Muon

from utils.config.pretrain import PretrainConfig
from utils.errors import CheckpointError
from utils.model.architecture import build_model
from utils.training.step.muon import BatchedMuon
from utils.training.step.optimizer import Optimizers, clip_gradients

TOY = dict(n_layer=1, d_model=16, n_head=2, d_ff=32, vocab_size=64)


def stepped(**changes):
    cfg = PretrainConfig(**TOY, **changes)
    model = build_model(cfg)
    optimizers = Optimizers.build(model, cfg)
    model(torch.arange(4, 20)[None], labels=torch.arange(4, 20)[None]).loss.backward()
    return model, optimizers


def test_block_matrices_go_to_muon_and_the_rest_to_adamw():
    _, optimizers = stepped()
    adamw, muon = (member.optimizer for member in optimizers.members)
    assert isinstance(adamw, AdamW) and isinstance(muon, Muon)
    names = {optimizers.names[p] for p in muon.param_groups[0]["params"]}
    assert len(names) == 7 and all(".layers.0." in name for name in names)
    rest = {optimizers.names[p] for group in adamw.param_groups for p in group["params"]}
    assert rest == set(optimizers.names.values()) - names


@pytest.mark.parametrize("momentum", [0.85, 0.95])
def test_muon_averages_over_the_memory_it_is_given(momentum):
    model, optimizers = stepped(muon_momentum=momentum)
    name, matrix = next((n, p) for n, p in model.named_parameters() if n.endswith("q_proj.weight"))
    gradient = matrix.grad.clone()
    optimizers.step(1.0)
    buffer = optimizers.tensors()[f"{name}:momentum_buffer"]
    torch.testing.assert_close(buffer, (1 - momentum) * gradient)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_muon_works_in_the_precision_it_is_given(dtype):
    cfg = PretrainConfig(**TOY)
    muon = Optimizers.build(build_model(cfg), cfg, dtype).members[1].optimizer
    assert isinstance(muon, BatchedMuon) and muon.dtype == dtype


def test_without_the_fast_forms_the_optimizers_are_the_plain_ones_of_torch():
    model, plain = stepped(fused_optimizer=False, optimizer="muon")
    adamw, muon = (member.optimizer for member in plain.members)
    assert type(muon) is Muon and type(adamw) is AdamW and not adamw.defaults["fused"]
    other, fast = stepped(optimizer="muon")
    for optimizers in (plain, fast):
        optimizers.step(0.1)
    assert plain.tensors().keys() == fast.tensors().keys()
    for left, right in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(left, right, atol=3e-4, rtol=0)


def test_adamw_alone_equals_torch_with_decay_on_matrices_only():
    model, optimizers = stepped(optimizer="adamw", weight_decay=0.1, learning_rate=0.01)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    optimizers.step(0.5)
    for name, parameter in model.named_parameters():
        clone = torch.nn.Parameter(before[name].clone())
        clone.grad = gradients[name]
        decay = 0.1 if ".layers." in name and clone.ndim == 2 else 0.0
        AdamW([clone], lr=0.005, betas=(0.9, 0.95), weight_decay=decay).step()
        torch.testing.assert_close(parameter, clone, atol=1e-7, rtol=1e-5)
        assert parameter.grad is None


@pytest.mark.parametrize("optimizer", ["normuon", "muon", "adamw"])
def test_state_goes_out_and_in_by_name(optimizer):
    _, optimizers = stepped(optimizer=optimizer)
    optimizers.step(1.0)
    state = {name: tensor.clone() for name, tensor in optimizers.tensors().items()}
    _, fresh = stepped(optimizer=optimizer)
    fresh.load(state)
    assert fresh.tensors().keys() == state.keys()
    assert all(torch.equal(fresh.tensors()[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("saved", "loaded"), [("muon", "adamw"), ("muon", "normuon"), ("normuon", "muon")]
)
def test_state_of_another_optimizer_is_refused(saved, loaded):
    _, one = stepped(optimizer=saved)
    one.step(1.0)
    _, other = stepped(optimizer=loaded)
    with pytest.raises(CheckpointError, match="same --optimizer"):
        other.load(dict(one.tensors()))


def test_gradients_are_scaled_down_to_the_norm():
    model, _ = stepped()
    clip_gradients(model, 1e-3)
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)
