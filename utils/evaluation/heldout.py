"""Held-out text and held-out conversations: bits per byte, loss of the answers, how they end.

Bits per byte = negative log-likelihood of all tokens of the split (nats) / ln 2 / UTF-8 bytes of
its text; each document's EOS is scored too, and a split's first token follows an EOS. Unlike
perplexity per token it can be compared between tokenizers, though only on the same text.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from utils.chat.layouts import opening
from utils.chat.rows import SFTRows
from utils.chat.templates import Message, Template
from utils.data.tokens.shards import TokenShards, iter_documents, read_dataset
from utils.errors import DataError
from utils.evaluation.likelihood import Check, Row, score_rows
from utils.evaluation.statistics import Estimate, bootstrap_ratio, scaled, wilson
from utils.model.checkpoints import LoadedModel

MAX_NEW_TOKENS = 128
PROMPTS_AT_ONCE = 16
"""Answers written between two looks at the clock."""


@dataclass(frozen=True)
class HeldOut:
    """Bits per byte of a split, with what went into it."""

    bits_per_byte: float
    interval: Estimate
    """The same value with a bootstrap interval over documents."""
    nats: float
    tokens: int
    bytes: int
    documents: int
    is_whole_split: bool
    """False when `max_tokens` left documents out."""


@dataclass(frozen=True)
class AnswerRates:
    """Shares of greedy answers."""

    stopped: Estimate
    """Ended by themselves within the limit."""
    empty: Estimate
    """Without any text, which ends by itself too."""


def heldout_bits_per_byte(
    model: LoadedModel | PreTrainedModel,
    data_dir: Path,
    max_tokens: int | None = None,
    *,
    split: str = "val",
    autocast: torch.dtype | None = None,
    check: Check | None = None,
) -> HeldOut:
    """Return bits per byte of the first whole documents of a split, at most `max_tokens` tokens.

    Rows have the model's context length; a row's first token is predicted from the one before.
    A bare model is scored as it is (during training); a loaded checkpoint must have been trained
    with the tokenizer of `data_dir`.

    Raises:
        DataError: no prepared folder, no documents, or another tokenizer.
    """
    if isinstance(model, LoadedModel):
        check_tokenizer(model, data_dir)
        model = model.model
    tokens, ends, sizes, eos_id = _documents(data_dir, split, max_tokens)
    rows = stream_rows(tokens, int(model.config.max_position_embeddings), eos_id)
    scores = score_rows(model, rows, name="held-out text", check=check, autocast=autocast)
    losses = -torch.cat([score.log_probs for score in scores]).double().numpy()
    nats = np.add.reduceat(losses, np.concatenate([[0], ends[:-1]]))
    bits = scaled(bootstrap_ratio(nats.tolist(), sizes), 1 / math.log(2))
    whole = len(ends) == read_dataset(data_dir)["splits"][split]["documents"]
    total = float(losses.sum())
    return HeldOut(bits.value, bits, total, len(tokens), sum(sizes), len(sizes), whole)


def check_tokenizer(loaded: LoadedModel, data_dir: Path) -> None:
    """Check that a checkpoint and a prepared folder have the same tokenizer.

    Raises:
        DataError: they differ, or lumi.json does not say.
    """
    wanted = read_dataset(data_dir)["tokenizer_sha256"]
    found = loaded.card.get("tokenizer_sha256")
    if found == wanted:
        return
    what = f"tokenizer {found[:12]}" if found else "a tokenizer that lumi.json does not name"
    raise DataError(
        f"{loaded.folder} was trained with {what}, {data_dir} was prepared with {wanted[:12]}: "
        "pass the --corpus_dir it was trained on"
    )


def stream_rows(tokens: np.ndarray, length: int, eos_id: int) -> list[Row]:
    """Return rows of at most `length` positions that score each token once, the first after EOS.

    `tokens` is one-dimensional: documents, each followed by EOS (`eos_id`).
    """
    inputs = np.concatenate([[eos_id], tokens[:-1]])
    return [
        (inputs[start : start + length].tolist(), tokens[start : start + length].tolist())
        for start in range(0, len(tokens), length)
    ]


def _documents(
    data_dir: Path, split: str, max_tokens: int | None
) -> tuple[np.ndarray, np.ndarray, list[int], int]:
    """Return (tokens, end of each document in tokens, UTF-8 bytes of each, id of EOS)."""
    shards = TokenShards.open(data_dir, split)
    offsets = shards.document_offsets
    if len(offsets) < 2:
        raise DataError(f"{data_dir} has no documents in its {split} split: prepare more text")
    count = len(offsets) - 1
    if max_tokens is not None:
        count = max(1, offsets.within(max_tokens))
    ends = offsets[1 : count + 1]
    texts = zip(range(count), iter_documents(data_dir, split), strict=False)
    sizes = [len(document["text"].encode()) for _, document in texts]
    if len(sizes) != count:
        raise DataError(f"{data_dir}: {split} has {count} documents, their text {len(sizes)}")
    tokens = np.asarray(shards.tokens[: int(ends[-1])], dtype=np.int64)
    return tokens, ends, sizes, shards.eos_id


def answer_loss(loaded: LoadedModel, rows: SFTRows, *, check: Check | None = None) -> Estimate:
    """Return the mean negative log-likelihood (nats) of an answer token, its stop token included.

    Raises:
        DataError: there is no row.
    """
    if not len(rows):
        raise DataError(
            f"none of {rows.dropped.total()} conversations fits into {loaded.context_length} "
            "tokens: give shorter ones"
        )
    columns = zip(rows.input_ids, rows.labels, strict=True)
    scored = [(ids[:-1], labels[1:]) for ids, labels in columns]
    scores = score_rows(loaded.model, scored, name="held-out answers", check=check)
    return bootstrap_ratio([-s.total for s in scores], [len(s.log_probs) for s in scores])


def first_prompts(conversations: Sequence[Sequence[Message]], count: int) -> list[list[Message]]:
    """Return what stands before the first answers, at most `count`, no prompt twice."""
    prompts = {repr(prompt): prompt for prompt in map(opening, conversations)}
    return list(prompts.values())[:count]


def answer_room(loaded: LoadedModel) -> int:
    """Return the tokens of the longest measured answer: 128, less where the context is short."""
    return min(MAX_NEW_TOKENS, loaded.context_length // 2)


def answer_rates(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[Message]],
    max_new_tokens: int,
    template: Template | None = None,
    *,
    check: Check | None = None,
) -> AnswerRates:
    """Return the shares of greedy answers that end within `max_new_tokens`, and that are empty.

    A prompt is the messages up to and including the user's last one; those that leave no room for
    `max_new_tokens` are left out, so `count` may be below len(prompts).

    Raises:
        DataError: no prompt fits.
    """
    from utils.generation.engine import generate_batch
    from utils.generation.sampling import Sampling

    layout = template or loaded.template
    room = loaded.context_length - max_new_tokens
    ids = [layout.encode_prompt(prompt, loaded.encoder) for prompt in prompts]
    ids = [prompt for prompt in ids if len(prompt) <= room]
    if not ids:
        raise DataError(
            f"none of {len(prompts)} prompts leaves room for {max_new_tokens} new tokens in a "
            f"context of {loaded.context_length}: give shorter ones"
        )
    settings, stopped, empty = Sampling(max_new_tokens=max_new_tokens), 0, 0
    for start in range(0, len(ids), PROMPTS_AT_ONCE):
        if check is not None:
            check(start / len(ids))
        answers = generate_batch(loaded, ids[start : start + PROMPTS_AT_ONCE], settings)
        stopped += sum(answer.stopped for answer in answers)
        empty += sum(not answer.text.strip() for answer in answers)
    return AnswerRates(wilson(stopped, len(ids)), wilson(empty, len(ids)))
