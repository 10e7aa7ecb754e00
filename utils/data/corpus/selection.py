"""Chooses the documents that stay, the split of each, and those the tokenizer is trained on.

Each decision is a limit on a rank, a hash of the document's own text, so it is a fair sample that
depends on the text and the sums only. Knows nothing about files.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np

from utils.config.prepare import MixtureSource
from utils.data.corpus.cleaned_unit import CleanedUnit
from utils.data.corpus.corpus import Corpus, Fate
from utils.data.corpus.mixture import allotments, loss_message

BINS = 1 << 16
BIN_SHIFT = np.uint64(64 - 16)
RANKS = 2.0**64
MAX_RANK = (1 << 64) - 1

Block = tuple[np.ndarray, np.ndarray]
"""Ranks (uint64) and lengths in characters of some documents."""


def balance(corpus: Corpus, sources: Sequence[MixtureSource]) -> str | None:
    """Drop documents so that the sources have the wanted shares of the characters.

    Each keeps the documents with the lowest ranks. Returns a line about what the scarcest source
    costs the others, if it does.
    """
    held = np.zeros(len(sources))
    for unit, fates in corpus.parts():
        held[unit.origin] += unit.column("characters")[fates == Fate.TRAIN].sum()
    taken = allotments(held, sources)
    for source in np.flatnonzero(taken < held).tolist():
        overhang = 0.0 if sources[source].max_characters else 0.5
        limit = rank_limit(partial(_blocks, corpus, source), taken[source], overhang)
        for unit, fates in corpus.parts():
            if unit.origin == source:
                over = (fates == Fate.TRAIN) & (unit.column("digests")[:, 0] > np.uint64(limit))
                fates[over] = Fate.OVER_MIXTURE_WEIGHT
    return loss_message(held, taken, sources)


def _blocks(corpus: Corpus, source: int) -> Iterator[Block]:
    for unit, fates in corpus.parts():
        if unit.origin == source:
            alive = fates == Fate.TRAIN
            yield unit.column("digests")[alive, 0], unit.column("characters")[alive]


def rank_limit(blocks: Callable[[], Iterable[Block]], wanted: float, overhang: float = 0.5) -> int:
    """Return the highest rank kept so that about `wanted` characters are.

    `overhang` is the part of the last document that may be over: with a half the sum is closest,
    with 0 it is never more. At least one document stays. The blocks are read twice and never all in
    memory.
    """
    wanted *= 1 + 1e-12
    sums = np.zeros(BINS)
    for ranks, characters in blocks():
        sums += np.bincount((ranks >> BIN_SHIFT).astype(np.int64), characters, BINS)
    before = np.cumsum(sums) - sums
    occupied = np.flatnonzero(sums)
    found = int(np.searchsorted(before[occupied], wanted)) - 1
    at = int(occupied[max(found, 0)])
    inside = [
        (ranks[chosen], characters[chosen])
        for ranks, characters in blocks()
        for chosen in [ranks >> BIN_SHIFT == np.uint64(at)]
    ]
    ranks, characters = (np.concatenate(part) for part in zip(*inside, strict=True))
    order = np.argsort(ranks, kind="stable")
    middles = before[at] + np.cumsum(characters[order]) - characters[order] * overhang
    fits = int(np.count_nonzero(middles <= wanted))
    if not fits and at > occupied[0]:
        return (at << int(BIN_SHIFT)) - 1
    return int(ranks[order[max(fits, 1) - 1]])


def split(corpus: Corpus, train_ratio: float) -> None:
    """Give the new documents whose rank lies above `train_ratio` to the validation split.

    A document's place depends on its own text only, so more data moves nothing from one split to
    the other. Of a corpus too small for that, the new document with the highest (lowest) rank is
    moved so that neither split is empty; this needs two documents.
    """
    highest, lowest = (-1, -1), (MAX_RANK + 1, -1)
    start = corpus.num_settled
    for unit, fates in corpus.new_parts():
        numbers = np.flatnonzero(fates == Fate.TRAIN)
        if len(numbers):
            ranks = unit.column("digests")[numbers, 0]
            fates[numbers[ranks.astype(np.float64) / RANKS >= train_ratio]] = Fate.VALIDATION
            top, bottom = int(ranks.argmax()), int(ranks.argmin())
            highest = max(highest, (int(ranks[top]), start + int(numbers[top])))
            lowest = min(lowest, (int(ranks[bottom]), start + int(numbers[bottom])))
        start += len(fates)
    train, validation = corpus.count(Fate.TRAIN), corpus.count(Fate.VALIDATION)
    if train + validation < 2 or highest[1] < 0:
        return
    if not validation:
        corpus.fates[highest[1]] = Fate.VALIDATION
    elif not train:
        corpus.fates[lowest[1]] = Fate.TRAIN


def sample(corpus: Corpus, budget: int) -> Iterator[tuple[CleanedUnit, np.ndarray]]:
    """Yield units with the training documents of a fair sample of about `budget` characters.

    All of them where these are fewer, and one at least; of the first round, so that what is made
    from the sample stays when a corpus grows. Its ranks are those of another hash than the one
    that splits.
    """
    first_round = corpus.borders[0]
    total, lowest = 0, MAX_RANK
    for unit, fates in corpus.parts(last=first_round):
        chosen = fates == Fate.TRAIN
        total += int(unit.column("characters")[chosen].sum())
        lowest = min([lowest, *unit.column("digests")[chosen, 1].tolist()])
    limit = MAX_RANK if total <= budget else max(int(RANKS * budget / total), lowest)
    for unit, fates in corpus.parts(last=first_round):
        numbers = np.flatnonzero(fates == Fate.TRAIN)
        yield unit, numbers[unit.column("digests")[numbers, 1] <= np.uint64(limit)]
