"""Builds the decoder from its settings: Llama, or Qwen3 (Llama with QK-norm)."""

from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from utils.config.model import ModelConfig
from utils.tokenizers.control_tokens import ControlIds

INITIALIZER_STD = 0.02
LUMI_IDS = ControlIds()
ARCHITECTURES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}
"""Classes of transformers; neither has biases."""


def decoder_config(config: ModelConfig, control: ControlIds, **overrides: Any) -> PreTrainedConfig:
    """Return the transformers configuration of a decoder."""
    kind, _ = ARCHITECTURES[config.architecture]
    return kind(
        vocab_size=config.vocab_size,
        hidden_size=config.d_model,
        intermediate_size=config.d_ff,
        num_hidden_layers=config.n_layer,
        num_attention_heads=config.n_head,
        num_key_value_heads=config.num_key_value_heads or config.n_head,
        head_dim=config.d_model // config.n_head,
        max_position_embeddings=config.sequence_length,
        attention_dropout=config.dropout,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        initializer_range=INITIALIZER_STD,
        tie_word_embeddings=config.tie_embeddings,
        bos_token_id=control.eos,
        eos_token_id=control.eos,
        pad_token_id=control.pad,
        **overrides,
    )


def build_model(
    config: ModelConfig,
    seed: int = 42,
    attention: str = "sdpa",
    control: ControlIds = LUMI_IDS,
) -> LlamaForCausalLM | Qwen3ForCausalLM:
    """Return a freshly initialised fp32 decoder; equal settings and seed give equal weights.

    `control` are the ids of the tokenizer it is trained with.
    """
    torch.manual_seed(seed)
    _, kind = ARCHITECTURES[config.architecture]
    model = kind(decoder_config(config, control, attn_implementation=attention))
    model.generation_config = GenerationConfig(
        bos_token_id=control.eos, eos_token_id=control.eos, pad_token_id=control.pad
    )
    return model
