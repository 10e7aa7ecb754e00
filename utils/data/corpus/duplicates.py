"""Find, over all units, the documents that repeat an earlier one.

Keys are taken from the units range by range, so that a sort of any corpus fits SORT_BYTES; besides
that a document takes four bytes of memory (five with its fate).
"""

import math
from collections.abc import Callable, Iterator
from itertools import combinations, pairwise

import numpy as np

from utils.data.corpus.cleaned_unit import CleanedUnit
from utils.data.corpus.corpus import Corpus, Fate
from utils.data.dedup.minhash import Families, GramSets, connect, is_similar
from utils.data.dedup.shingling import all_shingles, shingles
from utils.data.work.workers import AnyWorkers

SORT_BYTES = 1 << 27
BYTES_PER_KEY = 48
"""Memory for a key while it is sorted: itself, its document, the order, and copies of these."""
KEYS = 1 << 64
SMALL_BUCKET = 8
PAIRS_AT_ONCE = 500
MAX_PAIRS = 1 << 18
"""Pairs gathered before they are compared (about 30 MB)."""

Place = tuple[CleanedUnit, int]
"""A unit and a document's number in it."""


def exact_families(corpus: Corpus) -> Families:
    """Return the families of documents with equal digests; all but the first get their fate."""
    families = Families(len(corpus))
    for keys, numbers in _sorted_parts(corpus, 0):
        shared = _shared(keys)
        keys, numbers = keys[shared], numbers[shared]
        rest = _second_halves(corpus, numbers)
        order = np.lexsort((numbers, rest, keys))
        keys, rest, numbers = keys[order], rest[order], numbers[order]
        is_new = np.ones(len(keys), bool)
        is_new[1:] = (np.diff(keys) != 0) | (np.diff(rest) != 0)
        firsts = numbers[np.flatnonzero(is_new)[np.cumsum(is_new) - 1]] if len(keys) else numbers
        for number, first in zip(numbers[~is_new].tolist(), firsts[~is_new].tolist(), strict=True):
            families.join(first, number)
        corpus.fates[numbers[~is_new]] = Fate.EXACT_DUPLICATE
    return families


def near_families(
    corpus: Corpus,
    bands: int,
    threshold: float,
    workers: AnyWorkers,
    watch: Callable[[int], object] = lambda band: None,
) -> Families:
    """Return the families of near-duplicates among the documents that are no exact ones.

    All but the first of each get their fate. Pairs of small buckets are gathered and compared by
    the workers; members of large ones are compared here, which spares most of their many pairs.
    `watch(bands done)` is called for progress.
    """
    families = Families(len(corpus))
    settled = corpus.num_settled
    grams = GramSets(lambda number: shingles(corpus.row(number)["text"]))
    pairs: list[np.ndarray] = []
    for band in range(bands):
        for keys, numbers in _sorted_parts(corpus, 1 + band):
            small, large = _candidates(keys, numbers)
            pairs.append(small[small[:, 1] >= settled])
            for bucket in large:
                if bucket[-1] >= settled:
                    watch(band)
                    connect(bucket, families, grams, threshold)
            if sum(map(len, pairs)) > MAX_PAIRS:
                _compare(corpus, pairs, families, threshold, workers)
                pairs.clear()
        watch(band + 1)
    _compare(corpus, pairs, families, threshold, workers)
    mark(corpus, families)
    return families


def _compare(
    corpus: Corpus,
    pairs: list[np.ndarray],
    families: Families,
    threshold: float,
    workers: AnyWorkers,
) -> None:
    """Join the families of the pairs that are similar."""
    every = np.concatenate([np.empty((0, 2), np.int64), *pairs]).astype(np.uint64)
    ones, others = np.divmod(
        np.unique(every[:, 0] * np.uint64(len(corpus)) + every[:, 1]), len(corpus)
    )
    distinct = zip(ones.tolist(), others.tolist(), strict=True)
    unknown = [(a, b) for a, b in distinct if families.root(a) != families.root(b)]
    chunks = [unknown[at : at + PAIRS_AT_ONCE] for at in range(0, len(unknown), PAIRS_AT_ONCE)]
    tasks = (
        (threshold, [(corpus.place(a), corpus.place(b)) for a, b in chunk]) for chunk in chunks
    )
    for chunk, found in zip(chunks, workers.map(similar, tasks), strict=True):
        for (first, second), is_one in zip(chunk, found, strict=True):
            if is_one:
                families.join(first, second)


def similar(task: tuple[float, list[tuple[Place, Place]]]) -> list[bool]:
    """Return for each pair of documents whether their similarity reaches a threshold.

    A pure function (for a worker process).
    """
    threshold, pairs = task
    places = sorted({place for pair in pairs for place in pair}, key=lambda at: (at[0].name, at[1]))
    grams = dict(
        zip(places, all_shingles([unit.row(own)["text"] for unit, own in places]), strict=True)
    )
    return [is_similar(grams[one], grams[two], threshold) for one, two in pairs]


def mark(corpus: Corpus, families: Families) -> None:
    """Give all but the first of each family their fate; settled documents keep theirs."""
    later = np.fromiter(families.later_members(), np.int64)
    corpus.fates[later[later >= corpus.num_settled]] = Fate.NEAR_DUPLICATE


def _sorted_parts(corpus: Corpus, row: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the keys of a row in order, a range at a time, with the documents they belong to.

    All but exact duplicates take part; documents of equal keys are in reading order.
    """
    parts = max(1, math.ceil(len(corpus) * BYTES_PER_KEY / SORT_BYTES))
    bounds = [KEYS * part // parts for part in range(parts + 1)]
    for low, high in pairwise(bounds):
        keys = [np.empty(0, np.uint64)]
        numbers = [np.empty(0, np.int64)]
        for unit, start in zip(corpus.units, corpus.starts.tolist(), strict=False):
            found, own = unit.keys_between(row, low, high)
            place = own.astype(np.int64) + start
            alive = corpus.fates[place] != Fate.EXACT_DUPLICATE
            keys.append(found[alive])
            numbers.append(place[alive])
        joined = np.concatenate(keys)
        order = np.argsort(joined, kind="stable")
        yield joined[order], np.concatenate(numbers)[order]


def _shared(keys: np.ndarray) -> np.ndarray:
    """Return which of the sorted keys stand more than once (bool)."""
    same = np.zeros(len(keys) + 1, bool)
    same[1:-1] = keys[1:] == keys[:-1]
    return same[1:] | same[:-1]


def _candidates(keys: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, list[list[int]]]:
    """Return which documents share a key: pairs of small buckets, and large buckets whole.

    Pairs are int64 [pairs, 2]; of a pair and of a bucket the first in reading order comes first.
    """
    shared = _shared(keys)
    keys, numbers = keys[shared], numbers[shared]
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1], [True])))
    sizes, starts = np.diff(starts), starts[:-1]
    pairs = [np.empty((0, 2), np.int64)]
    for size in range(2, SMALL_BUCKET + 1):
        own = np.array(list(combinations(range(size), 2)))  # (pairs of a bucket, 2)
        pairs.append(numbers[(starts[sizes == size, None, None] + own).reshape(-1, 2)])
    ends = zip(starts[sizes > SMALL_BUCKET], sizes[sizes > SMALL_BUCKET], strict=True)
    return np.concatenate(pairs), [numbers[at : at + size].tolist() for at, size in ends]


def _second_halves(corpus: Corpus, numbers: np.ndarray) -> np.ndarray:
    """Return the second half of the digest of each document."""
    rest = np.empty(len(numbers), np.uint64)
    order = np.argsort(numbers)
    places = np.searchsorted(corpus.starts, numbers[order], "right") - 1
    units, begins = np.unique(places, return_index=True)
    for at, own in zip(units.tolist(), np.split(order, begins[1:]), strict=len(units) > 0):
        rest[own] = corpus.units[at].column("digests")[numbers[own] - corpus.starts[at], 1]
    return rest
