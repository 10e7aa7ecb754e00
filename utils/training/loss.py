"""The language-model loss. Labels are made here and nowhere else: the next token of the same row.

Legend: B rows, T positions, N = B * T, D width, V vocabulary.
The head never holds all logits (N, V): it works on chunks of rows and forms the gradient of each
chunk in the forward pass, where its probabilities are at hand.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from utils.training.sharding import with_weights

IGNORED = -100
CHUNK_LOGITS = 2**23
"""Logits per chunk: 32 MB in fp32, 256 rows at V = 32768 and 1024 rows at V = 8192."""


def next_token_targets(input_ids: Tensor) -> Tensor:
    """Return what each position of (B, T) must predict; `IGNORED` at row ends."""
    targets = torch.full_like(input_ids, IGNORED)
    targets[:, :-1] = input_ids[:, 1:]
    return targets


def count_targets(input_ids: Tensor) -> int:
    """Return how many positions of (B, T) have something to predict."""
    return int((next_token_targets(input_ids) != IGNORED).sum())


def language_model_loss(
    model: nn.Module, input_ids: Tensor, normalizer: float | None = None
) -> Tensor:
    """Return the summed loss in nats over `normalizer` (the number of targets: the mean).

    Args:
        model: a Llama-like causal model: `model.model` gives hidden states, `model.lm_head` maps
            them to logits.
        input_ids: (B, T) token ids, without padding: rows are packed.
        normalizer: what to divide by; with accumulation, the targets of the whole step.
    """
    targets = next_token_targets(input_ids)
    if normalizer is None:
        normalizer = max(1, int((targets != IGNORED).sum()))
    return with_weights(model, summed_loss, input_ids, targets, normalizer)


def summed_loss(model: nn.Module, input_ids: Tensor, targets: Tensor, normalizer: float) -> Tensor:
    """Return the loss of (B, T) targets in nats over `normalizer`; the head's weight is whole."""
    hidden = hidden_states(model, input_ids)  # (B, T, D)
    weight: Tensor = model.lm_head.weight  # pyright: ignore[reportAssignmentType,reportAttributeAccessIssue]
    return chunked_cross_entropy(hidden.flatten(0, 1), weight, targets.flatten(), normalizer)


def hidden_states(model: nn.Module, input_ids: Tensor) -> Tensor:
    """Return what goes into the head, (B, T, D), in the precision of autocast when it is on."""
    decoder: Any = model.model
    hidden = decoder(input_ids=input_ids, use_cache=False).last_hidden_state
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
    scale = torch.tensor(1.0 / normalizer, dtype=torch.float32, device=hidden.device)
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
        return _ChunkedCrossEntropy.apply(hidden, weight, targets, scale)  # pyright: ignore[reportReturnType]
    with torch.autocast(hidden.device.type, enabled=False):
        head = weight.to(hidden.dtype)
        total = hidden.new_zeros((), dtype=torch.float32)
        for rows in _chunks(len(hidden), len(weight)):
            logits = (hidden[rows] @ head.t()).float()
            total += nn.functional.cross_entropy(logits, targets[rows], reduction="sum")
        return total * scale


def _chunks(num_rows: int, num_classes: int) -> list[slice]:
    size = max(64, CHUNK_LOGITS // num_classes)
    return [slice(start, start + size) for start in range(0, num_rows, size)]


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
            for rows in _chunks(len(hidden), len(weight)):
                logits = hidden[rows] @ head.t()
                loss, gradient = LossKernel.run(logits, targets[rows], scale)
                total += loss
                torch.matmul(gradient, head, out=d_hidden[rows])
                d_weight += gradient.t() @ hidden[rows]  # product as is, sum in fp32
        ctx.save_for_backward(d_hidden, d_weight)
        ctx.weight_dtype = weight.dtype
        return total * scale

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (factor,) = upstream
        d_hidden, d_weight = ctx.saved_tensors
        return (
            d_hidden * factor.to(d_hidden.dtype),
            (d_weight * factor).to(ctx.weight_dtype),
            None,
            None,
        )
