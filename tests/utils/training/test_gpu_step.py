"""The training step on a GPU: right, repeatable, and without waiting for the device inside."""

import subprocess
import sys

import pytest
import torch

from utils.config.pretrain import PretrainConfig
from utils.model.architecture import build_model
from utils.model.attention import choose_attention
from utils.training.step.fast_paths import choose_fast_paths, compile_decoder
from utils.training.step.loss import LossKernel, language_model_loss
from utils.training.step.optimizer import Optimizers, clip_gradients

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
GPU = torch.device("cuda")
SETTINGS = dict(n_layer=2, d_model=128, n_head=2, d_ff=256, vocab_size=2000, sequence_length=256)


def step_on_the_gpu(cfg):
    """Return (model, a function that does one whole step and returns loss and norm)."""
    attention = choose_attention(GPU, flash=cfg.flash_attn and cfg.bf16)
    model = build_model(cfg, attention=attention).to(GPU).train()
    fast = choose_fast_paths(GPU, attention, cfg)
    optimizers = Optimizers.build(model, cfg, fast.muon_dtype)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(4, 2000, (4, 256), generator=generator).to(GPU)

    def step():
        with torch.autocast("cuda", torch.bfloat16, enabled=fast.bf16):
            loss = language_model_loss(model, ids, 4 * 255.0, chunked=fast.chunked_head)
        loss.backward()
        norm = clip_gradients(model, cfg.max_grad_norm)
        optimizers.step(1.0)
        return loss.detach(), norm

    return model, step


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("compiled", [True, False])
def test_a_step_never_waits_for_the_device(compiled, fused):
    model, step = step_on_the_gpu(
        PretrainConfig(**SETTINGS, fused_optimizer=fused, optimizer="normuon" if fused else "muon")
    )
    losses = []
    try:
        if compiled:
            assert compile_decoder(model, step)
        for _ in range(2):
            step()
        torch.cuda.set_sync_debug_mode("error")
        for _ in range(3):
            losses.append(step()[0])
    finally:
        torch.cuda.set_sync_debug_mode("default")
        LossKernel.eager()
    numbers = [loss.item() for loss in losses]
    assert numbers == sorted(numbers, reverse=True)


@pytest.mark.parametrize("compiled", [True, False])
def test_the_fast_paths_give_the_loss_of_plain_fp32(compiled):
    plain = build_model(PretrainConfig(**SETTINGS)).to(GPU)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(4, 2000, (4, 256), generator=generator).to(GPU)
    wanted = plain(input_ids=ids, labels=ids).loss.item()
    model, step = step_on_the_gpu(PretrainConfig(**SETTINGS))
    try:
        if compiled:
            assert compile_decoder(model, lambda: None)
        found = step()[0].item()
    finally:
        LossKernel.eager()
    assert found == pytest.approx(wanted, abs=2e-2)


TWICE = """
import hashlib, torch
from tests.utils.training.test_gpu_step import SETTINGS, step_on_the_gpu
from utils.config.pretrain import PretrainConfig
from utils.training.step.seeding import make_deterministic
make_deterministic()
model, step = step_on_the_gpu(PretrainConfig(**SETTINGS))
for _ in range(5):
    step()
weights = b"".join(p.detach().cpu().numpy().tobytes() for p in model.parameters())
print(hashlib.sha256(weights).hexdigest())
"""


def test_the_deterministic_mode_gives_the_same_bytes_twice(root):
    hashes = set()
    for _ in range(2):
        command = [sys.executable, "-c", TWICE]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        hashes.add(done.stdout.strip())
    assert len(hashes) == 1
