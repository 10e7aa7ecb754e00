"""Builds the LLaMA-style decoder from its settings."""

from typing import Any

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from utils.config.model import ModelConfig
from utils.data.control_tokens import ControlIds

INITIALIZER_STD = 0.02
LUMI_IDS = ControlIds()


def llama_config(config: ModelConfig, control: ControlIds, **overrides: Any) -> LlamaConfig:
    """Return the transformers configuration of a decoder."""
    return LlamaConfig(
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
) -> LlamaForCausalLM:
    """Return a freshly initialised fp32 decoder; equal settings and seed give equal weights.

    `control` are the ids of the tokenizer it is trained with.
    """
    torch.manual_seed(seed)
    model = LlamaForCausalLM(llama_config(config, control, attn_implementation=attention))
    model.generation_config = GenerationConfig(
        bos_token_id=control.eos, eos_token_id=control.eos, pad_token_id=control.pad
    )
    return model
