"""The language-model loss. Labels are made here and nowhere else: the next token of the same row.

Legend: B rows, T positions, N = B * T, D width, V vocabulary.
The head never holds all logits (N, V): it works on chunks of rows and forms the gradient of each
chunk in the forward pass, where its probabilities are at hand.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from utils.model.attention import DocumentMask
from utils.training.devices.fsdp import with_weights

IGNORED = -100
CHUNK_LOGITS = 2**23
"""Logits per chunk: 32 MB in fp32, 256 rows at V = 32768 and 1024 rows at V = 8192."""
CUDA_CHUNK_LOGITS = 2**25
"""The same on CUDA where the kernel is compiled (67 MB in bf16, 1024 rows at V = 32768): each chunk
reads and writes the whole gradient of the weights, 250 MB at D = 768, beside products of n rows."""


@dataclass(frozen=True)
class RowForm:
    """What rows are besides tokens: padded or full, one text or documents."""

    pad_id: int | None = None
    """Nobody learns to predict it; None: rows are full."""
    mask: DocumentMask | None = None
    """None: attention runs along the row."""


FULL_ROWS = RowForm()


def next_token_targets(input_ids: Tensor, pad_id: int | None = None) -> Tensor:
    """Return what each position of (B, T) must predict; `IGNORED` at row ends and for padding."""
    targets = torch.full_like(input_ids, IGNORED)
    targets[:, :-1] = input_ids[:, 1:]
    return targets if pad_id is None else targets.masked_fill(targets == pad_id, IGNORED)


def language_model_loss(
    model: nn.Module,
    input_ids: Tensor,
    normalizer: float | None = None,
    form: RowForm = FULL_ROWS,
    *,
    chunked: bool = True,
) -> Tensor:
    """Return the summed loss in nats over `normalizer` (the number of targets: the mean).

    Args:
        model: a Llama-like causal model: `model.model` gives hidden states, `model.lm_head` maps
            them to logits.
        input_ids: (B, T) token ids of packed rows.
        normalizer: what to divide by; with accumulation, the targets of the whole step.
        form: whether rows are padded, and whether attention stays inside documents.
        chunked: without it all logits are held at once and torch's own cross_entropy is taken.
    """
    targets = next_token_targets(input_ids, form.pad_id)
    if normalizer is None:
        normalizer = max(1, int((targets != IGNORED).sum()))
    return with_weights(model, _summed, input_ids, targets, normalizer, form.mask, chunked)


def _summed(
    model: nn.Module,
    input_ids: Tensor,
    targets: Tensor,
    normalizer: float,
    mask: DocumentMask | None,
    chunked: bool,
) -> Tensor:
    """Return the loss of (B, T) targets; head and embedding are whole."""
    hidden = hidden_states(model, input_ids, mask)  # (B, T, D)
    weight: Tensor = model.lm_head.weight  # pyright: ignore[reportAssignmentType,reportAttributeAccessIssue]
    head = chunked_cross_entropy if chunked else plain_cross_entropy
    return head(hidden.flatten(0, 1), weight, targets.flatten(), normalizer)


def hidden_states(model: nn.Module, input_ids: Tensor, mask: DocumentMask | None = None) -> Tensor:
    """Return what goes into the head, (B, T, D), in the precision of autocast when it is on."""
    decoder: Any = model.model
    inside = mask.inputs(input_ids, decoder.config._attn_implementation) if mask else {}
    hidden = decoder(input_ids=input_ids, use_cache=False, **inside).last_hidden_state
    if torch.is_autocast_enabled(hidden.device.type):
        hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
    return hidden


def chunked_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, normalizer: float
) -> Tensor:
    """Return sum of cross_entropy(hidden @ weight.T, targets) / normalizer without all logits.

    Args:
        hidden: (N, D), in the precision of the products.
        weight: (V, D) master weights.
        targets: (N,) class or `IGNORED`.
        normalizer: divisor of the sum.
    """
    scale = torch.full((), 1.0 / normalizer, dtype=torch.float32, device=hidden.device)
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
        return _ChunkedCrossEntropy.apply(hidden, weight, targets, scale)  # pyright: ignore[reportReturnType]
    with torch.autocast(hidden.device.type, enabled=False):
        head = weight.to(hidden.dtype)
        total = hidden.new_zeros((), dtype=torch.float32)
        for rows in _chunks(hidden, weight):
            logits = (hidden[rows] @ head.t()).float()
            total += nn.functional.cross_entropy(logits, targets[rows], reduction="sum")
        return total * scale


def plain_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, normalizer: float
) -> Tensor:
    """Return what `chunked_cross_entropy` does, from all logits (N, V) at once."""
    logits = nn.functional.linear(hidden, weight.to(hidden.dtype)).float()  # (N, V)
    return nn.functional.cross_entropy(logits, targets, reduction="sum") / normalizer


def _chunks(hidden: Tensor, weight: Tensor) -> list[slice]:
    on_gpu = hidden.device.type == "cuda" and LossKernel.run is not loss_and_logit_gradient
    size = max(64, (CUDA_CHUNK_LOGITS if on_gpu else CHUNK_LOGITS) // len(weight))
    return [slice(start, start + size) for start in range(0, len(hidden), size)]


def loss_and_logit_gradient(
    logits: Tensor, targets: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the summed loss of a chunk and d(scaled loss)/d(logits), (n, V) like the logits."""
    exact = logits.float()
    normal = torch.logsumexp(exact, -1, keepdim=True)  # (n, 1)
    known = (targets != IGNORED).unsqueeze(1)  # (n, 1)
    classes = targets.clamp(min=0).unsqueeze(1)
    loss = torch.where(known, normal - exact.gather(1, classes), 0.0).sum()
    hit = torch.arange(logits.shape[1], device=logits.device).unsqueeze(0) == classes
    gradient = (torch.exp(exact - normal) - hit.float()) * torch.where(known, scale, 0.0)
    return loss, gradient.to(logits.dtype)


class LossKernel:
    """The element-wise part of the head: eager until `compile` replaces it by one fused pass."""

    run: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]] = staticmethod(
        loss_and_logit_gradient
    )

    @classmethod
    def compile(cls) -> None:
        """Compile it for fixed shapes (four times less memory traffic on a CPU)."""
        cls.run = staticmethod(torch.compile(loss_and_logit_gradient, dynamic=False))

    @classmethod
    def eager(cls) -> None:
        """Go back to plain operations."""
        cls.run = staticmethod(loss_and_logit_gradient)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Gradients are formed chunk by chunk in the forward pass and scaled in the backward one."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            head = weight.to(hidden.dtype)
            d_hidden = torch.empty_like(hidden)
            d_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
            total = torch.zeros((), dtype=torch.float32, device=hidden.device)
            for rows in _chunks(hidden, weight):
                logits = hidden[rows] @ head.t()
                loss, gradient = LossKernel.run(logits, targets[rows], scale)
                total += loss
                torch.matmul(gradient, head, out=d_hidden[rows])
                if gradient.dtype == d_weight.dtype:
                    d_weight.addmm_(gradient.t(), hidden[rows])
                else:
                    d_weight += gradient.t() @ hidden[rows]  # product as is, sum in fp32
        ctx.gradients = d_hidden, d_weight
        ctx.weight_dtype = weight.dtype
        return total * scale

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (factor,) = upstream
        d_hidden, d_weight = ctx.gradients
        del ctx.gradients  # scaled in place, so there is no second time
        return d_hidden.mul_(factor), d_weight.mul_(factor).to(ctx.weight_dtype), None, None
