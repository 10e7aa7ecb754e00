"""Chooses how attention is computed: FlashAttention, SDPA, or blocks of plain products on a CPU.

Each of them along the row, or inside the documents of a row where a `DocumentMask` is given.
Legend: B batch, H query heads, K key/value heads, T positions, D head width, S documents.
Knows nothing about training; the choice never reaches a checkpoint.
"""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import activate_flash_attention_impl
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.llama.modeling_llama import repeat_kv
from transformers.utils.import_utils import is_flash_attn_2_available

BLOCKED = "lumi_blocked"
"""Name under which transformers knows `blocked_attention`: causal rows, or documents in them."""
UNMASKED = "lumi_sdpa"
"""SDPA for which transformers makes no mask: to see that a row needs none, its own waits for the
GPU in every forward pass."""
QUERY_BLOCK = 128
"""Rows of queries per block; what lies above the diagonal block is never computed."""
KERNELS = {9: ("FA3", "FA4"), 10: ("FA4",)}
"""FlashAttention kernels that torch can put behind SDPA, best first, by CUDA generation."""

log = logging.getLogger(__name__)


def choose_attention(
    device: torch.device, *, flash: bool = True, blocked: bool = True, dropout: float = 0.0
) -> str:
    """Return the name of the attention for training on `device` and log it.

    On CUDA: FlashAttention-3 or 4 behind SDPA, then FlashAttention-2, each where its package is
    installed, then what torch has built in. `flash` needs bf16.

    Reference: FlashAttention-2 (Dao, 2023), FlashAttention-3 (Shah et al., 2024).
    """
    if device.type == "cpu" and blocked:
        AttentionInterface.register(BLOCKED, blocked_attention)
        log.info("attention: causal blocks of %d queries (CPU)", QUERY_BLOCK)
        return BLOCKED
    if device.type == "cpu":
        log.info("attention: SDPA (blocks are switched off)")
        return "sdpa"
    if not flash:
        log.info("attention: SDPA (FlashAttention is switched off)")
    elif device.type != "cuda":
        log.info("attention: SDPA (FlashAttention needs CUDA)")
    elif not dropout and (kernel := _activate_kernel(device)):
        log.info("attention: SDPA by %s", kernel)
    elif is_flash_attn_2_available():
        log.info("attention: FlashAttention-2")
        return "flash_attention_2"
    else:
        log.info("attention: SDPA (FlashAttention is not installed)")
    AttentionInterface.register(UNMASKED, sdpa_attention_forward)
    return UNMASKED


def _activate_kernel(device: torch.device) -> str | None:
    """Put the best FlashAttention kernel that is installed behind SDPA and return its name."""
    major, _ = torch.cuda.get_device_capability(device)
    for name in KERNELS.get(major, ()):
        try:
            activate_flash_attention_impl(name)
        except (ImportError, RuntimeError) as error:  # not installed, or built for another torch
            log.debug("%s: %s", name, error)
            continue
        return name
    return None


@dataclass(frozen=True)
class DocumentMask:
    """Keeps attention inside documents; positions restart with each.

    EOS belongs to what follows it, for which it is BOS: a text that is scored or written later
    begins with it too. Shapes depend on B and T alone, and nothing is read back from the device.
    """

    eos_id: int
    most_documents: int
    """Most documents, or parts of them, in a row (S / B)."""

    def inputs(self, input_ids: Tensor, attention: str) -> dict[str, Any]:
        """Return what a decoder with this kind of attention takes besides `input_ids` (B, T)."""
        begins = input_ids == self.eos_id  # (B, T)
        places = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        first = torch.where(begins, places, 0).cummax(1).values  # where the document begins
        inputs: dict[str, Any] = {"position_ids": places - first}
        if attention.startswith("flash_attention"):
            return inputs | self._lengths(begins | (places == 0))
        documents = begins.cumsum(1)
        if attention == BLOCKED:
            return inputs | {"document_ids": documents}
        length = input_ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=input_ids.device).tril()
        same = documents[:, None, :, None] == documents[:, None, None, :]  # (B, 1, T, T)
        return inputs | {"attention_mask": same & causal}

    def _lengths(self, begins: Tensor) -> dict[str, Any]:
        """Return the borders of all documents of a batch; those not there have length 0."""
        total, length = begins.numel(), begins.shape[1]
        most = min(total, begins.shape[0] * self.most_documents)
        places = torch.arange(total, device=begins.device)
        borders = torch.where(begins.flatten(), places, total).sort().values[:most]
        borders = nn.functional.pad(borders, (0, 1), value=total).to(torch.int32)  # (S + 1,)
        names = ("cu_seq_lens_q", "cu_seq_lens_k"), ("max_length_q", "max_length_k")
        return dict.fromkeys(names[0], borders) | dict.fromkeys(names[1], length)


def blocked_attention(
    module: nn.Module,
    query: Tensor,  # (B, H, T, D)
    key: Tensor,  # (B, K, T, D)
    value: Tensor,  # (B, K, T, D)
    attention_mask: Tensor | None,
    document_ids: Tensor | None = None,  # (B, T)
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
    keys, values = repeat_kv(key, groups), repeat_kv(value, groups)
    dropout = options.get("dropout")
    out = causal_blocks(query, keys, values, scaling, dropout=dropout, documents=document_ids)
    return out.transpose(1, 2).contiguous(), None


def causal_blocks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float,
    *,
    dropout: float | None = None,
    documents: Tensor | None = None,  # (B, T)
) -> Tensor:
    """Return causal attention (B, H, T, D), one block of queries after the other.

    With `documents`, the number of each position's document, only inside documents. No block of
    keys is skipped for them: which could be differs from batch to batch, and so would the shapes.
    """
    length, blocks = query.shape[2], []
    for start in range(0, length, QUERY_BLOCK):
        end = min(start + QUERY_BLOCK, length)
        scores = (query[:, :, start:end] @ key[:, :, :end].transpose(-1, -2)).float() * scaling
        seen = torch.ones(end - start, end, dtype=torch.bool, device=query.device).tril(start)
        if documents is not None:
            seen = seen & (documents[:, None, start:end, None] == documents[:, None, None, :end])
        weights = scores.masked_fill(~seen, float("-inf")).softmax(-1).to(value.dtype)
        if dropout:
            weights = nn.functional.dropout(weights, dropout)
        blocks.append(weights @ value[:, :, :end])
    return torch.cat(blocks, 2)
