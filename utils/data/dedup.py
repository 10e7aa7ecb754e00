"""Exact and near-duplicates: of documents that repeat each other the first in reading order stays.

Two documents are near-duplicates when the Jaccard similarity of their sets of word 5-grams reaches
the threshold. MinHash and banding only propose pairs; every pair is then checked exactly, so no
document is dropped by chance. A document is dropped if, and only if, such pairs connect it to an
earlier one, so the result depends on nothing but the texts and their order.

Reference: Broder, On the resemblance and containment of documents (1997); Leskovec, Rajaraman and
Ullman, Mining of Massive Datasets, chapter 3.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import xxhash

from utils.data.shingling import MIX, Shingles, gram_hashes

NUM_PERMUTATIONS = 256
MISS_PROBABILITY = 3e-6
"""A pair exactly at the threshold may escape the banding this often (42 x 6 at 0.8: 2.8e-6)."""
SIGNATURE_SEED = 42
CACHED_SETS = 20_000
"""Shingle sets kept in memory during the exact check (a few hundred values each)."""


def text_digest(text: str) -> bytes:
    """Return 16 bytes that are equal for texts that differ in white space only."""
    return xxhash.xxh3_128_digest(" ".join(text.split()).encode("utf-8", "replace"))


def jaccard(first: Shingles, second: Shingles) -> float:
    """Return the share of the 5-grams of both documents that they have in common."""
    common = len(np.intersect1d(first, second, assume_unique=True))
    union = len(first) + len(second) - common
    return common / union if union else 0.0


def banding(threshold: float) -> tuple[int, int]:
    """Return (bands, rows): the most selective split of the signature that misses too rarely.

    A pair of similarity s shares a band with probability 1 - (1 - s**rows)**bands.
    """
    for rows in range(NUM_PERMUTATIONS, 1, -1):
        bands = NUM_PERMUTATIONS // rows
        if (1 - threshold**rows) ** bands <= MISS_PROBABILITY:
            return bands, rows
    return NUM_PERMUTATIONS, 1


def signatures(grams: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return MinHash signatures of `gram_hashes`, uint32 [texts, NUM_PERMUTATIONS]."""
    from rensa import RMinHash  # type: ignore[attr-defined]

    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        grams, offsets.astype(np.uint64), NUM_PERMUTATIONS, SIGNATURE_SEED
    )
    return np.array(matrix.to_rows(), np.uint32).reshape(len(offsets) - 1, NUM_PERMUTATIONS)


def band_keys(texts: Sequence[str], threshold: float) -> np.ndarray:
    """Return 64-bit keys, [texts, bands]; documents that share a key of a band are candidates.

    A text without words resembles no other: it gets keys of its own.
    """
    bands, rows = banding(threshold)
    grams, offsets = gram_hashes(texts)
    parts = signatures(grams, offsets)[:, : bands * rows].reshape(len(texts), bands, rows)
    keys = np.zeros(parts.shape[:2], np.uint64)
    for row in range(rows):
        keys ^= parts[:, :, row]
        keys *= MIX[row % len(MIX)]
        keys ^= keys >> np.uint64(32)
    for number in np.flatnonzero(np.diff(offsets) == 0).tolist():
        keys[number] = xxhash.xxh3_64_intdigest(text_digest(texts[number]))
    return keys


def exact_duplicates(digests: np.ndarray) -> np.ndarray:
    """Return for each document the index of the first one with its digest (its own if none).

    `digests`: shape [documents], any dtype that can be sorted (16-byte values).
    """
    _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    return first[inverse.reshape(-1)]


class Families:
    """Union-find over documents; the root of a family is its first member in reading order."""

    def __init__(self, count: int) -> None:
        self._parents = np.arange(count)

    def root(self, number: int) -> int:
        """Return the first member of the document's family."""
        parents = self._parents
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return int(number)

    def join(self, first: int, second: int) -> None:
        """Make one family of two."""
        low, high = sorted((self.root(first), self.root(second)))
        self._parents[high] = low


def near_duplicates(
    keys: np.ndarray,
    alive: np.ndarray,
    threshold: float,
    grams_of: Callable[[int], Shingles],
    watch: Callable[[int], object] = lambda band: None,
) -> dict[int, int]:
    """Return {dropped document: the first one of its family}.

    `keys`: band keys, shape [documents, bands]; `alive`: bool, which documents take part.
    `grams_of(i)` reads the 5-grams of a document again; `watch(bands done)` is called for progress.
    """
    cached = lru_cache(maxsize=CACHED_SETS)(grams_of)
    families = Families(len(alive))
    present = np.flatnonzero(alive)

    def is_similar(first: int, second: int) -> bool:
        one, two = cached(first), cached(second)
        least, most = sorted((len(one), len(two)))
        return 0 < threshold * most <= least and jaccard(one, two) >= threshold

    for band in range(keys.shape[1]):
        for bucket in _buckets(present, keys[present, band]):
            watch(band)
            _connect(bucket, families, is_similar)
    watch(keys.shape[1])
    roots = {number: families.root(number) for number in present.tolist()}
    return {number: root for number, root in roots.items() if root != number}


def _buckets(numbers: np.ndarray, keys: np.ndarray) -> Iterator[list[int]]:
    """Yield the documents that share a key, each group in reading order."""
    order = np.argsort(keys, kind="stable")
    is_new = np.diff(keys[order], prepend=~keys[order[:1]]) != 0
    starts = np.append(np.flatnonzero(is_new), len(keys))
    for group in np.flatnonzero(np.diff(starts) > 1).tolist():
        yield numbers[order[starts[group] : starts[group + 1]]].tolist()


def _connect(
    bucket: Iterable[int], families: Families, is_similar: Callable[[int, int], bool]
) -> None:
    """Join the families of all similar pairs of a bucket; pairs of one family are not compared."""
    met: list[list[int]] = []
    for number in bucket:
        joined = [number]
        others = []
        for members in met:
            is_one = families.root(members[0]) == families.root(number) or any(
                is_similar(number, other) for other in members
            )
            if is_one:
                families.join(number, members[0])
                joined = members + joined
            else:
                others.append(members)
        met = [*others, joined]
