"""Each proof of the training signal passes on the real loss and fails on a broken one."""

import math
from itertools import pairwise

import pytest
import torch
from torch.nn.functional import cross_entropy

from utils.config.model import ModelConfig
from utils.model.architecture import build_model
from utils.preflight.signal import (
    accumulation,
    cyclic_rows,
    initial_loss,
    next_token,
    small_architecture,
    undisturbed,
)
from utils.training.step.loss import language_model_loss

TINY = ModelConfig(vocab_size=600)
GROUPED = ModelConfig(
    n_layer=4, d_model=640, n_head=10, num_key_value_heads=5, d_ff=2560, dropout=0.1,
    vocab_size=600, rope_theta=50_000.0, tie_embeddings=False,
)  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    with undisturbed():
        yield


def reference_loss(model, input_ids, normalizer=None):
    """Written from the definition: mean of -log p(x[t+1] | x[..t])."""
    logits = model(input_ids=input_ids).logits[:, :-1].flatten(0, 1)
    targets = input_ids[:, 1:].flatten()
    return cross_entropy(logits, targets, reduction="sum") / (normalizer or len(targets))


def shifted_twice(model, input_ids, normalizer=None):
    """The predecessor's fault: labels shifted when stored and again in the model."""
    logits = model(input_ids=input_ids).logits[:, :-2].flatten(0, 1)
    targets = input_ids[:, 2:].flatten()
    return cross_entropy(logits, targets, reduction="sum") / (normalizer or len(targets))


def mean_of_each_micro_batch(model, input_ids, normalizer=None):
    return language_model_loss(model, input_ids)


def without_gradient(model, input_ids, normalizer=None):
    return language_model_loss(model, input_ids, normalizer) * 0.0


def rows(vocab_size):
    generator = torch.Generator().manual_seed(3)
    return torch.randint(12, vocab_size, (4, 128), generator=generator)


def test_the_cyclic_language_goes_round():
    row = cyclic_rows(1, seed=0)[0].tolist()
    assert len(row) == 32
    assert row[16:] == row[:16]
    assert sorted(row[:16]) == list(range(12, 28))
    assert all(after - before in (1, -15) for before, after in pairwise(row))


@pytest.mark.parametrize("config", [TINY, GROUPED], ids=["plain", "grouped"])
@pytest.mark.parametrize("loss", [language_model_loss, reference_loss])
def test_a_right_loss_teaches_the_next_token(config, loss):
    result = next_token(config, loss)
    assert result.ok, result.line()


def test_labels_shifted_twice_are_found_and_named():
    result = next_token(TINY, shifted_twice)
    assert not result.ok
    assert "token t+2 instead" in result.measured


def test_a_loss_without_gradient_is_found():
    assert not next_token(TINY, without_gradient).ok


@pytest.mark.parametrize("config", [TINY, GROUPED], ids=["plain", "grouped"])
def test_accumulation_is_equal_with_the_real_loss(config):
    result = accumulation(config, language_model_loss)
    assert result.ok, result.line()


def test_micro_batches_that_ignore_the_normalizer_are_found():
    result = accumulation(TINY, mean_of_each_micro_batch)
    assert not result.ok
    assert "differ by 7.0e+00" in result.measured  # the sum of eight means is eight times the mean


def test_a_fresh_model_has_the_loss_of_a_guess():
    result = initial_loss(build_model(TINY), rows(600), language_model_loss)
    assert result.ok, result.line()
    assert abs(float(result.measured) - math.log(600)) < 0.25


def test_an_initialisation_ten_times_too_wide_is_found():
    model = build_model(TINY)
    with torch.no_grad():
        model.lm_head.weight.mul_(10)
    assert not initial_loss(model, rows(600), language_model_loss).ok


def test_a_loss_over_half_the_vocabulary_is_found():
    def halved(model, input_ids, normalizer=None):
        logits = model(input_ids=input_ids % 300).logits[:, :-1, :300].flatten(0, 1)
        return cross_entropy(logits, (input_ids % 300)[:, 1:].flatten())

    assert not initial_loss(build_model(TINY), rows(600), halved).ok


def test_the_small_model_keeps_the_kinds_of_parts():
    small = small_architecture(GROUPED, 100)
    assert (small.n_head, small.num_key_value_heads) == (2, 1)
    assert small.d_ff == 4 * small.d_model
    assert not small.tie_embeddings
    assert small.rope_theta == 50_000.0
    one_key = ModelConfig(d_model=768, n_head=12, num_key_value_heads=1)
    assert small_architecture(one_key, 100).num_key_value_heads == 1


def test_random_state_precision_and_threads_come_back():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    torch.set_num_threads(2)
    torch.set_float32_matmul_precision("medium")
    with undisturbed():
        torch.manual_seed(1)
        torch.rand(7)
        assert torch.get_float32_matmul_precision() == "highest"
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_float32_matmul_precision() == "medium"
    assert torch.get_num_threads() == 2
