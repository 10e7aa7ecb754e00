"""Chooses how attention is computed: FlashAttention-2, SDPA, or blocks of plain products on a CPU.

Legend: B batch, H query heads, K key/value heads, T positions, D head width.
Knows nothing about training; the choice never reaches a checkpoint.
"""

import importlib.util
import logging

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.llama.modeling_llama import repeat_kv

BLOCKED = "lumi_blocked"
"""Name under which transformers knows `blocked_attention`. It has no mask: causal rows only."""
QUERY_BLOCK = 128
"""Rows of queries per block; what lies above the diagonal block is never computed."""

log = logging.getLogger(__name__)


def choose_attention(device: torch.device, *, flash: bool = True) -> str:
    """Return the name of the attention for training on `device` and log it.

    Reference: FlashAttention-2 (Dao, 2023), used only where the package is installed on CUDA.
    """
    if device.type == "cpu":
        AttentionInterface.register(BLOCKED, blocked_attention)
        log.info("attention: causal blocks of %d queries (CPU)", QUERY_BLOCK)
        return BLOCKED
    if not flash:
        log.info("attention: SDPA (FlashAttention-2 is switched off)")
        return "sdpa"
    if device.type != "cuda" or importlib.util.find_spec("flash_attn") is None:
        reason = "needs CUDA" if device.type != "cuda" else "is not installed"
        log.info("attention: SDPA (FlashAttention-2 %s)", reason)
        return "sdpa"
    log.info("attention: FlashAttention-2")
    return "flash_attention_2"


def blocked_attention(
    module: nn.Module,
    query: Tensor,  # (B, H, T, D)
    key: Tensor,  # (B, K, T, D)
    value: Tensor,  # (B, K, T, D)
    attention_mask: Tensor | None,
    **options: float | None,
) -> tuple[Tensor, None]:
    """Causal attention in transformers' calling convention; returns (B, T, H, D) and no weights.

    One new token against a cache, or a mask from outside, goes through SDPA.
    """
    if attention_mask is not None or query.shape[2] != key.shape[2]:
        out, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)  # pyright: ignore[reportArgumentType]
        return out, None
    groups = query.shape[1] // key.shape[1]
    scaling = options.get("scaling") or query.shape[-1] ** -0.5
    out = causal_blocks(
        query, repeat_kv(key, groups), repeat_kv(value, groups), scaling, options.get("dropout")
    )
    return out.transpose(1, 2).contiguous(), None


def causal_blocks(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float | None = None
) -> Tensor:
    """Return causal attention (B, H, T, D), one block of queries after the other."""
    length, blocks = query.shape[2], []
    for start in range(0, length, QUERY_BLOCK):
        end = min(start + QUERY_BLOCK, length)
        scores = (query[:, :, start:end] @ key[:, :, :end].transpose(-1, -2)).float() * scaling
        seen = torch.ones(end - start, end, dtype=torch.bool, device=query.device).tril(start)
        weights = scores.masked_fill(~seen, float("-inf")).softmax(-1).to(value.dtype)
        if dropout:
            weights = nn.functional.dropout(weights, dropout)
        blocks.append(weights @ value[:, :, :end])
    return torch.cat(blocks, 2)
