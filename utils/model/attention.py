"""Chooses how attention is computed: FlashAttention, SDPA, or blocks of plain products on a CPU.

Each of them along the row, or inside the documents of a row where a `DocumentMask` is given.
Legend: B batch, H query heads, K key/value heads, T positions, D head width, S documents.
Knows nothing about training; the choice never reaches a checkpoint.
"""

import functools
import logging
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
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

    In the precision of `value`, which is that of autocast where it is on; softmax is in fp32. With
    `documents`, the number of each position's document, only inside documents. No block of keys is
    skipped for them: which could be differs from batch to batch, and so would the shapes.
    """
    query, key = (query * scaling).to(value.dtype), key.to(value.dtype)
    return _CausalBlocks.apply(query, key, value, dropout or 0.0, documents)  # pyright: ignore[reportReturnType]


class _CausalBlocks(torch.autograd.Function):
    """Rows are divided by their sums after the product with the values, as in FlashAttention.

    So one copy of the weights is kept, in the precision of the products, and the way back needs no
    sums over keys: those of weight times gradient are those of output times gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        dropout: float,
        documents: Tensor | None,
    ) -> Tensor:
        outs, kept, dropped, shares = [], [], [], []
        for start, end in _query_blocks(query.shape[2]):
            scores = (query[:, :, start:end] @ key[:, :, :end].mT).float()
            scores = scores.masked_fill(~_seen(start, end, query.device, documents), -math.inf)
            weights = torch.exp(scores - scores.amax(-1, keepdim=True))  # (B, H, block, end)
            share = weights.sum(-1, keepdim=True).reciprocal()
            weights = weights.to(value.dtype)
            kept.append(weights)
            if dropout:
                weights = nn.functional.dropout(weights, dropout)
                dropped.append(weights)
            outs.append(((weights @ value[:, :, :end]).float() * share).to(value.dtype))
            shares.append(share)
        out = torch.cat(outs, 2)
        ctx.save_for_backward(query, key, value, out, *kept, *shares, *dropped)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        query, key, value, out, *saved = ctx.saved_tensors
        blocks = _query_blocks(query.shape[2])
        kept, shares = saved[: len(blocks)], saved[len(blocks) : 2 * len(blocks)]
        dropped = saved[2 * len(blocks) :] or kept
        d_query, d_key, d_value = [], [], []
        for number, (start, end) in enumerate(blocks):
            exact = upstream[0][:, :, start:end].float() * shares[number]
            inner = (exact * out[:, :, start:end].float()).sum(-1, keepdim=True)
            d_out = exact.to(value.dtype)  # (B, H, block, D)
            d_weights = (d_out @ value[:, :, :end].mT).float()
            d_scores = dropped[number].float() * d_weights - kept[number].float() * inner
            d_scores = d_scores.to(query.dtype)
            d_query.append(d_scores @ key[:, :, :end])
            d_key.append(d_scores.mT @ query[:, :, start:end])
            d_value.append(dropped[number].mT @ d_out)
        return torch.cat(d_query, 2), _over_keys(d_key), _over_keys(d_value), None, None


def _query_blocks(length: int) -> list[tuple[int, int]]:
    return [(at, min(at + QUERY_BLOCK, length)) for at in range(0, length, QUERY_BLOCK)]


def _seen(start: int, end: int, device: torch.device, documents: Tensor | None) -> Tensor:
    """Return which of the first `end` keys each query of a block sees, (block, end) or per row."""
    seen = torch.ones(end - start, end, dtype=torch.bool, device=device).tril(start)
    if documents is None:
        return seen
    return seen & (documents[:, None, start:end, None] == documents[:, None, None, :end])


def _over_keys(parts: list[Tensor]) -> Tensor:
    """Return the sum (B, H, T, D) of what each block of queries gives to the keys it has seen."""
    sums = []
    for number, (start, end) in enumerate(_query_blocks(parts[-1].shape[2])):
        sums.append(functools.reduce(torch.add, [part[:, :, start:end] for part in parts[number:]]))
    return torch.cat(sums, 2)
