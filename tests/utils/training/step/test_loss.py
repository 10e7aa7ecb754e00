"""The chunked head against torch's cross_entropy on all logits."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from utils.config.model import ModelConfig
from utils.model.architecture import build_model
from utils.training.step import loss as module
from utils.training.step.loss import (
    IGNORED,
    chunked_cross_entropy,
    language_model_loss,
    next_token_targets,
)

TOY = ModelConfig(n_layer=1, d_model=32, n_head=2, d_ff=48, vocab_size=100, sequence_length=64)


def test_a_target_is_the_next_token_of_the_row_whatever_its_id():
    ids = torch.tensor([[5, 6, 7], [8, 3, 3]])
    assert next_token_targets(ids).tolist() == [[6, 7, IGNORED], [3, 3, IGNORED]]
    assert next_token_targets(ids, pad_id=3).tolist() == [[6, 7, IGNORED], [IGNORED] * 3]


@pytest.mark.parametrize("rows", [7, 64, 200])
def test_loss_and_gradients_equal_cross_entropy(monkeypatch, rows):
    monkeypatch.setattr(module, "CHUNK_LOGITS", 64 * 100)
    torch.manual_seed(0)
    hidden = torch.randn(rows, 32, requires_grad=True)
    weight = torch.randn(100, 32, requires_grad=True)
    targets = torch.randint(0, 100, (rows,))
    targets[::5] = IGNORED
    known = int((targets != IGNORED).sum())
    exact = cross_entropy(hidden @ weight.t(), targets)
    wanted = torch.autograd.grad(3 * exact, (hidden, weight))
    ours = chunked_cross_entropy(hidden, weight, targets, known)
    found = torch.autograd.grad(3 * ours, (hidden, weight))
    torch.testing.assert_close(ours, exact, atol=1e-6, rtol=1e-6)
    for left, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(left, right, atol=1e-6, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(chunked_cross_entropy(hidden, weight, targets, known), exact)


def test_bf16_is_within_its_rounding():
    torch.manual_seed(0)
    hidden, weight = torch.randn(256, 32), torch.randn(100, 32) / 6
    targets = torch.randint(0, 100, (256,))
    exact = cross_entropy(hidden @ weight.t(), targets)
    low = hidden.bfloat16().requires_grad_()
    assert abs(chunked_cross_entropy(low, weight, targets, 256).item() - exact.item()) < 0.01


@pytest.mark.parametrize("chunked", [True, False])
def test_the_model_loss_is_that_of_transformers(chunked):
    model = build_model(TOY)
    ids = torch.randint(4, 100, (3, 64))
    theirs = model(input_ids=ids, labels=ids).loss
    ours = language_model_loss(model, ids, chunked=chunked)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    wanted = torch.autograd.grad(theirs, list(model.parameters()))
    found = torch.autograd.grad(ours, list(model.parameters()))
    for left, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(left, right, atol=1e-6, rtol=1e-4)


def test_accumulation_with_the_step_normalizer_gives_the_gradient_of_the_whole():
    model = build_model(TOY)
    ids = torch.randint(4, 100, (4, 64))
    parameters = list(model.parameters())
    whole = torch.autograd.grad(language_model_loss(model, ids), parameters)
    parts = [language_model_loss(model, row[None], 4 * 63.0) for row in ids]
    summed = torch.autograd.grad(sum(parts), parameters)
    for left, right in zip(whole, summed, strict=True):
        torch.testing.assert_close(left, right, atol=1e-6, rtol=1e-4)


PEAK = """
import sys, torch
from utils.training.step import loss
def line(name):
    rows = open("/proc/self/status").read().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith(name)) * 1024 / 1e6
hidden = torch.randn(2048, 256, requires_grad=True)
weight = torch.full((32768, 256), 0.01, requires_grad=True)
targets = torch.randint(0, 32768, (2048,))
head = getattr(loss, sys.argv[1])
head(hidden[:8], weight[:64], targets[:8] % 64, 8.0).backward()  # buffers of the library
weight.grad = None
open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
before = line("VmRSS")
head(hidden, weight, targets, 2048.0).backward()
print(line("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_the_head_stays_below_300_mb_where_all_logits_take_more(root):
    peak_mb = {}
    for head in ("chunked_cross_entropy", "plain_cross_entropy"):
        command = [sys.executable, "-c", PEAK, head]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        peak_mb[head] = float(done.stdout)
    assert peak_mb["chunked_cross_entropy"] < 300 < 700 < peak_mb["plain_cross_entropy"]
