"""The one scoring core: log-likelihoods by the protocol of the lm-evaluation-harness.

Legend: B rows of a batch, T positions, N scored positions, D width, V vocabulary.
fp32, no BOS but what the tokenizer adds of itself (Lumi's adds none) and in front of an empty
context, at most `context_length` positions, the context cut from the left. Rows are batched by
length and padded on the right, where a causal model cannot see; logits exist only for the scored
positions and only LOGIT_ROWS of them at a time, so memory is bounded whatever the benchmark.
Knows nothing about what is asked: benchmarks build the pairs and read the scores.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from utils.log import progress
from utils.model.checkpoints import LoadedModel

IGNORE = -100
"""Target of a position that is not scored."""
LOGIT_ROWS = 512
"""Positions whose logits exist at once: 512 x 32,768 x 4 bytes = 67 MB."""
POSITIONS_PER_BATCH = {"cpu": 4096, "cuda": 32_768, "mps": 8192}
PLAIN_HEADS = frozenset(
    {"llama", "qwen3", "gpt2", "gpt_neox", "gpt_neo", "opt", "mistral", "qwen2"}
)
"""Model types whose logits are head(hidden states) and nothing more; others run whole."""

Pair = tuple[list[int], list[int]]
"""(ids of the context, ids of the continuation)."""
Row = tuple[list[int], list[int]]
"""(input ids, targets) of equal length; a target is the next id, or IGNORE."""
Check = Callable[[float], object]
"""Called before each batch with the share of the work that is done; raises to stop."""


@dataclass(frozen=True)
class RowScore:
    """Natural log-probabilities of the targets of one row, in order."""

    log_probs: torch.Tensor
    """[N] float32 on the CPU."""
    is_greedy: bool
    """Whether each target was the most likely token."""

    @property
    def total(self) -> float:
        """Sum of the log-probabilities, in nats."""
        return float(self.log_probs.double().sum())


def encode_text(loaded: LoadedModel, text: str) -> list[int]:
    """Return ids by the tokenizer's own BOS policy; literal control strings stay plain text."""
    return loaded.tokenizer.encode(text, split_special_tokens=True)


def encode_pair(loaded: LoadedModel, context: str, continuation: str) -> Pair:
    """Return the ids of a context and of what follows it.

    Blanks at the end of the context belong to the continuation, and the two are encoded together,
    because pieces begin with a blank. An empty context becomes the prefix token.
    """
    if not context:
        ids = loaded.encoder.encode(continuation)
        return (ids[:1], ids[1:]) if ids[:1] == [loaded.prefix_id] else ([loaded.prefix_id], ids)
    stripped = context.rstrip()
    continuation, context = context[len(stripped) :] + continuation, stripped
    whole = encode_text(loaded, context + continuation)
    length = len(encode_text(loaded, context))
    return whole[:length], whole[length:]


def rolling_windows(ids: Sequence[int], prefix_id: int, max_length: int) -> list[Pair]:
    """Return windows of `max_length` that together score each id once.

    The first window begins with the prefix token, the others with one token of context; the last
    one is filled up with earlier tokens as context.
    """
    windows: list[Pair] = []
    for start in range(0, len(ids), max_length):
        end = min(start + max_length, len(ids))
        first = max(0, end - max_length) if start else 0
        context = [prefix_id] if start == 0 else list(ids[first - 1 : start])
        windows.append((context, list(ids[start:end])))
    return windows


def score_pairs(
    loaded: LoadedModel,
    pairs: Sequence[Pair],
    *,
    name: str = "scoring",
    check: Check | None = None,
) -> list[tuple[float, bool]]:
    """Return (log-likelihood in nats, whether greedy decoding would write it) of each continuation.

    A continuation longer than the context length is scored on its last `context_length` tokens.
    """
    rows = [pair_row(pair, loaded.context_length) for pair in pairs]
    scores = score_rows(loaded.model, rows, name=name, check=check)
    return [(score.total, score.is_greedy) for score in scores]


def score_rolling(
    loaded: LoadedModel,
    texts: Sequence[str],
    *,
    name: str = "scoring",
    check: Check | None = None,
) -> list[tuple[float, int]]:
    """Return (log-likelihood in nats, tokens) of each whole text."""
    pairs: list[Pair] = []
    owners: list[int] = []
    for number, text in enumerate(texts):
        ids = encode_text(loaded, text)
        windows = rolling_windows(ids, loaded.prefix_id, loaded.context_length)
        pairs += windows
        owners += [number] * len(windows)
    totals = [(0.0, 0) for _ in texts]
    scores = score_pairs(loaded, pairs, name=name, check=check)
    for owner, pair, (log_likelihood, _) in zip(owners, pairs, scores, strict=True):
        total, tokens = totals[owner]
        totals[owner] = (total + log_likelihood, tokens + len(pair[1]))
    return totals


def pair_row(pair: Pair, max_length: int) -> Row:
    """Return the row that scores a continuation after (the end of) its context."""
    context, continuation = pair
    ids = [*context, *continuation][-(max_length + 1) :]
    scored = min(len(continuation), len(ids) - 1)
    inputs = ids[:-1]
    return inputs, [IGNORE] * (len(inputs) - scored) + ids[len(ids) - scored :]


def score_rows(
    model: PreTrainedModel,
    rows: Sequence[Row],
    *,
    name: str = "scoring",
    check: Check | None = None,
    autocast: torch.dtype | None = None,
) -> list[RowScore]:
    """Return the log-probabilities of every target that is not IGNORE, row by row.

    `autocast` (bfloat16) is for quick estimates during training; benchmarks leave it unset.
    """
    order = sorted(range(len(rows)), key=lambda number: -len(rows[number][0]))
    scores: list[RowScore | None] = [None] * len(rows)
    total = sum(len(row[0]) for row in rows)
    with _scoring(model, autocast), progress(name, total) as task:
        for batch in _batches(order, rows, positions_per_batch(model)):
            if check is not None:
                check(task.done / max(total, 1))
            for number, score in zip(batch, _score_batch(model, rows, batch), strict=True):
                scores[number] = score
            task.advance(sum(len(rows[number][0]) for number in batch))
    return [score for score in scores if score is not None]


def positions_per_batch(model: PreTrainedModel) -> int:
    """Return how many padded positions are run at once; few where the logits exist as a whole."""
    if model.config.model_type not in PLAIN_HEADS:
        return LOGIT_ROWS
    return POSITIONS_PER_BATCH.get(model.device.type, 4096)


@contextmanager
def _scoring(model: PreTrainedModel, autocast: torch.dtype | None) -> Iterator[None]:
    """Switch dropout and gradients off, and back."""
    was_training = model.training
    model.eval()
    precision: AbstractContextManager = nullcontext()
    if autocast is not None:
        precision = torch.autocast(model.device.type, dtype=autocast)
    try:
        with torch.no_grad(), precision:
            yield
    finally:
        model.train(was_training)


def _batches(order: Sequence[int], rows: Sequence[Row], budget: int) -> Iterator[list[int]]:
    """Cut rows sorted by falling length into batches of at most `budget` padded positions."""
    start = 0
    while start < len(order):
        width = max(1, len(rows[order[start]][0]))
        size = max(1, budget // width)
        yield list(order[start : start + size])
        start += size


def _score_batch(
    model: PreTrainedModel, rows: Sequence[Row], batch: Sequence[int]
) -> list[RowScore]:
    width = max(len(rows[number][0]) for number in batch)
    inputs = torch.zeros(len(batch), width, dtype=torch.long)  # [B, T]
    targets = torch.full((len(batch), width), IGNORE)  # [B, T]
    for place, number in enumerate(batch):
        ids, wanted = rows[number]
        inputs[place, : len(ids)] = torch.tensor(ids, dtype=torch.long)
        targets[place, : len(ids)] = torch.tensor(wanted, dtype=torch.long)
    log_probs, greedy = target_log_probs(model, inputs.to(model.device), targets.to(model.device))
    counts = (targets != IGNORE).sum(dim=1).tolist()
    return [
        RowScore(row.clone(), bool(hits.all()))
        for row, hits in zip(log_probs.split(counts), greedy.split(counts), strict=True)
    ]


def target_log_probs(
    model: PreTrainedModel, inputs: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (log-probability [N] float32, is the most likely token [N]) of the scored targets.

    `inputs` and `targets` are [B, T]; N counts the targets that are not IGNORE, row after row.
    The results are on the CPU.
    """
    scored = targets != IGNORE
    wanted = targets[scored]  # [N]
    if model.config.model_type in PLAIN_HEADS:
        hidden = model.base_model(input_ids=inputs, use_cache=False).last_hidden_state[scored]
        head = model.get_output_embeddings()
        assert head is not None, model.config.model_type
        parts = _chunks(head, hidden)
    else:
        parts = iter([model(input_ids=inputs, use_cache=False).logits[scored]])
    log_probs, greedy, done = [inputs.new_zeros(0, dtype=torch.float32)], [scored.new_zeros(0)], 0
    for logits in parts:  # [n, V]
        part = wanted[done : done + len(logits)]
        log_probs.append(-functional.cross_entropy(logits.float(), part, reduction="none"))
        greedy.append(logits.argmax(dim=-1) == part)
        done += len(logits)
    return torch.cat(log_probs).cpu(), torch.cat(greedy).cpu()


def _chunks(head: torch.nn.Module, hidden: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield logits [n, V] of at most LOGIT_ROWS positions at a time; `hidden` is [N, D]."""
    for start in range(0, len(hidden), LOGIT_ROWS):
        yield head(hidden[start : start + LOGIT_ROWS])
