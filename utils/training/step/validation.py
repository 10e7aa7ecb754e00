"""Bits per byte on the first whole documents of the validation split, in rows of training shape.

Bits per byte = nats of all tokens, each document's EOS included / ln 2 / UTF-8 bytes of the
text, as in `utils.evaluation.heldout`; here the compiled training graph and its shapes are used,
because a validation comes many times in a run.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from utils.data.tokens.shards import TokenShards, iter_documents
from utils.errors import DataError
from utils.model.attention import DocumentMask
from utils.training.devices.fsdp import with_weights
from utils.training.step.loss import IGNORED, chunked_cross_entropy, hidden_states


@dataclass(frozen=True)
class ValidationSet:
    """Rows that score each token of some documents once; a row's first token follows another."""

    inputs: Tensor
    """(R, T) ids."""
    targets: Tensor
    """(R, T) the next id of each, `IGNORED` after the end."""
    tokens: int
    text_bytes: int
    mask: DocumentMask | None = None
    """Attention inside documents, as in training; None: along the row."""

    @classmethod
    def open(
        cls, folders: Sequence[Path], length: int, max_tokens: int, *, document_mask: bool = False
    ) -> Self:
        """Take the first whole documents of each folder's validation split.

        Raises:
            DataError: a folder has no validation documents.
        """
        parts = [_first_documents(folder, max_tokens // len(folders)) for folder in folders]
        rows = [_rows(tokens, length, eos_id) for tokens, _, eos_id in parts]
        inputs, eos_id = torch.cat([inputs for inputs, _ in rows]), parts[0][2]
        most = 1 + int((inputs == eos_id).sum(1).max())
        return cls(
            inputs,
            torch.cat([targets for _, targets in rows]),
            sum(len(tokens) for tokens, _, _ in parts),
            sum(size for _, size, _ in parts),
            DocumentMask(eos_id, most) if document_mask else None,
        )

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (inputs, targets) of exactly `size` rows; the last batch is filled with nothing."""
        for start in range(0, len(self.inputs), size):
            inputs, targets = (part[start : start + size] for part in (self.inputs, self.targets))
            missing = size - len(inputs)
            if missing:
                shape = (missing, inputs.shape[1])
                inputs = torch.cat([inputs, torch.zeros(shape, dtype=torch.long)])
                targets = torch.cat([targets, torch.full(shape, IGNORED)])
            yield inputs, targets


def _first_documents(folder: Path, max_tokens: int) -> tuple[np.ndarray, int, int]:
    """Return (tokens, UTF-8 bytes) of the first documents, one at least, and the id of EOS."""
    shards = TokenShards.open(folder, "val")
    if shards.num_documents == 0:
        raise DataError(f"{folder} has no validation documents: prepare more text")
    count = max(1, shards.document_offsets.within(max_tokens))
    size = sum(len(row["text"].encode()) for row in islice(iter_documents(folder, "val"), count))
    end = shards.document_offsets[count]
    return np.asarray(shards.tokens[:end], dtype=np.int64), size, shards.eos_id


def _rows(tokens: np.ndarray, length: int, eos_id: int) -> tuple[Tensor, Tensor]:
    count = -(-len(tokens) // length)
    inputs = np.zeros(count * length, dtype=np.int64)
    targets = np.full(count * length, IGNORED, dtype=np.int64)
    inputs[: len(tokens)] = np.concatenate([[eos_id], tokens[:-1]])
    targets[: len(tokens)] = tokens
    shape = (count, length)
    return torch.from_numpy(inputs.reshape(shape)), torch.from_numpy(targets.reshape(shape))


def bits_per_byte(
    model: nn.Module,
    data: ValidationSet,
    batch_size: int,
    is_over: Callable[[int], bool] = lambda batches: False,
) -> tuple[float, int]:
    """Return (bits per byte, tokens scored) of `data`.

    `is_over(batches done)` may end it early; the value is then that of the tokens scored, at the
    bytes per token of the whole set. Without dropout the model stays in training mode, so that the
    compiled graph of training serves here too.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.train(was_training and not _has_dropout(model))
    nats, scored = torch.zeros((), dtype=torch.float64), 0
    try:
        for number, (inputs, targets) in enumerate(data.batches(batch_size), start=1):
            nats += with_weights(model, _nats, inputs.to(device), targets.to(device), data.mask)
            scored += int((targets != IGNORED).sum())
            if is_over(number):
                break
    finally:
        model.train(was_training)
    return float(nats) / math.log(2) / (data.text_bytes * scored / data.tokens), scored


def _nats(model: nn.Module, inputs: Tensor, targets: Tensor, mask: DocumentMask | None) -> Tensor:
    """Return the summed loss of (B, T) targets, without a graph."""
    hidden = hidden_states(model, inputs, mask).detach()  # (B, T, D)
    weight = model.lm_head.weight.detach()  # pyright: ignore[reportAttributeAccessIssue,reportCallIssue]
    nats = chunked_cross_entropy(hidden.flatten(0, 1), weight, targets.flatten(), 1.0)  # pyright: ignore[reportArgumentType]
    return nats.double().cpu()


def _has_dropout(model: nn.Module) -> bool:
    return bool(model.config.attention_dropout)  # pyright: ignore[reportAttributeAccessIssue]
