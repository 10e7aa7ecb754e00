"""Counts and estimates against torch and against hand-made arithmetic."""

import json

import pytest

from utils.config.model import ModelConfig
from utils.model.architecture import build_model
from utils.model.sizing import (
    checkpoint_bytes,
    count_parameters,
    flops_per_token,
    memory_bytes,
    state_bytes,
)


def shipped(root, name):
    values = json.loads((root / "config" / f"{name}.json").read_text())
    return ModelConfig(**{k: v for k, v in values.items() if k in ModelConfig.model_fields})


@pytest.mark.parametrize(
    ("name", "total", "without"),
    [("tiny", 14.7, 6.3), ("small", 67.1, 50.3), ("base", 251.7, 226.5)],
)
def test_shipped_sizes_have_the_documented_counts(root, name, total, without):
    count = count_parameters(shipped(root, name))
    assert round(count.total / 1e6, 1) == total
    assert round(count.without_embeddings / 1e6, 1) == without


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv", [None, 2])
def test_the_count_is_what_torch_counts(tied, kv, architecture):
    config = ModelConfig(
        architecture=architecture,
        n_layer=2, d_model=64, n_head=4, num_key_value_heads=kv, d_ff=96, vocab_size=300,
        tie_embeddings=tied,
    )  # fmt: skip
    model = build_model(config)
    assert count_parameters(config).total == sum(p.numel() for p in model.parameters())


def test_flops_per_token_of_a_hand_counted_model():
    config = ModelConfig(n_layer=1, d_model=4, n_head=2, d_ff=8, vocab_size=10, sequence_length=16)
    # q, k, v, o: 4 * 16; SwiGLU: 3 * 32; head: 40; attention: 6 * 1 * 4 * 16
    assert flops_per_token(config) == 6 * (64 + 96 + 40) + 384


def test_optimizer_state_is_one_buffer_a_matrix_under_muon():
    config = ModelConfig(n_layer=1, d_model=4, n_head=2, d_ff=8, vocab_size=10)
    assert state_bytes(config, "adamw") == 8 * count_parameters(config).total
    assert state_bytes(config, "adamw") - state_bytes(config, "muon") == 4 * (64 + 96)
    assert state_bytes(config, "normuon") - state_bytes(config, "muon") == 4 * (4 * 4 + 3 * 8)
    assert checkpoint_bytes(config) > 4 * count_parameters(config).total + state_bytes(config)


def test_memory_grows_with_the_batch_and_shrinks_with_checkpointing(root):
    tiny = shipped(root, "tiny")
    assert memory_bytes(tiny, 16) > 2 * memory_bytes(tiny, 4)
    assert memory_bytes(tiny, 16, gradient_checkpointing=True) < memory_bytes(tiny, 16) / 2
