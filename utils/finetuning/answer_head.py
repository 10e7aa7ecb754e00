"""TRL's output head, for answer tokens only where there is no GPU.

TRL's fused head projects every position to the vocabulary on a CPU and masks afterwards. This one
projects only the positions that are learned: the same numbers and gradients for less work.
"""

import types
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from trl.trainer.utils import FusedCausalLMOutput

from utils.chat.rows import IGNORE

CHUNK = 2048
"""Positions whose logits exist at once: 2048 x 32,768 x 4 bytes = 268 MB, a few times over."""


def use_answer_head(model: PreTrainedModel) -> None:
    """Make `model(..., labels=labels, fused_lm_head=True)` score learned positions only.

    Called after TRL has put its own head on; without `fused_lm_head` the forward is as before.
    """
    before = model.forward

    def forward(
        self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any
    ) -> Any:
        if not fused_lm_head:
            return before(*args, labels=labels, **kwargs)
        kwargs.pop("use_cache", None)
        hidden = self.base_model(*args, use_cache=False, **kwargs).last_hidden_state  # [B, T, D]
        return answer_output(self.get_output_embeddings(), hidden[:, :-1], labels[:, 1:])

    model.forward = types.MethodType(forward, model)


def answer_output(
    head: torch.nn.Module, hidden: torch.Tensor, labels: torch.Tensor
) -> FusedCausalLMOutput:
    """Return what TRL's losses and metrics read, zero where nothing is learned.

    `hidden` is [B, T - 1, D], `labels` [B, T - 1] the next tokens or IGNORE.
    """
    mask = labels != IGNORE
    states, wanted = hidden[mask], labels[mask]  # [N, D], [N]
    parts = [
        checkpoint(_score, head, states[at : at + CHUNK], wanted[at : at + CHUNK],
                   use_reentrant=False) if len(wanted) > CHUNK else _score(head, states, wanted)
        for at in range(0, max(1, len(wanted)), CHUNK)
    ]  # fmt: skip
    log_probs, entropy, mean_logits, is_top1 = (
        torch.zeros(mask.shape, dtype=columns[0].dtype, device=mask.device).masked_scatter(
            mask, torch.cat(columns)
        )
        for columns in zip(*parts, strict=True)
    )
    return FusedCausalLMOutput(
        loss=-log_probs.sum() / mask.sum().clamp(min=1),
        log_probs=log_probs,
        entropy=entropy,
        mean_logits=mean_logits,
        is_top1=is_top1,
        label_mask=mask,
    )


def _score(
    head: torch.nn.Module, states: torch.Tensor, wanted: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return log-probability, entropy, mean logit and is-top-1 of each position, [N] each."""
    logits = head(states).float()  # [N, V]
    log_probs = -torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
    with torch.no_grad():
        everything = logits.log_softmax(dim=-1)
        entropy = -(everything.exp() * everything).sum(dim=-1)
        top = logits.argmax(dim=-1) == wanted
    return log_probs, entropy, logits.detach().mean(dim=-1), top
