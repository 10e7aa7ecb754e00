"""Exact and near-duplicates: of documents that repeat each other the first in reading order stays.

Two documents are near-duplicates when the Jaccard similarity of their sets of word 5-grams reaches
the threshold. MinHash and banding only propose pairs; every pair is then checked exactly, so no
document is dropped by chance. A document is dropped if, and only if, such pairs connect it to an
earlier one, so the result depends on nothing but the texts and their order.

Reference: Broder, On the resemblance and containment of documents (1997); Leskovec, Rajaraman and
Ullman, Mining of Massive Datasets, chapter 3.
"""

import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import xxhash

from utils.data.dedup.shingling import MIX, Shingles, batches_by_script, gram_hashes

NUM_PERMUTATIONS = 256
MISS_PROBABILITY = 3e-6
"""A pair exactly at the threshold may escape the banding this often (42 x 6 at 0.8: 2.8e-6)."""
SIGNATURE_SEED = 42
PACK_ROW = struct.Struct(f"<{NUM_PERMUTATIONS}I").pack
HELD_BYTES = 1 << 26
"""Sets of 5-grams kept in memory during the exact check (a few kilobytes each)."""
BLOCK = 1 << 20


WHITE_SPACE = bytes(point for point in range(128) if chr(point).isspace())


def text_digest(text: str) -> bytes:
    """Return 16 bytes that are equal for texts that differ in white space only."""
    if text.isascii():
        return xxhash.xxh3_128_digest(text.encode("ascii").translate(None, WHITE_SPACE))
    return xxhash.xxh3_128_digest("".join(text.split()).encode("utf-8", "replace"))


def jaccard(first: Shingles, second: Shingles) -> float:
    """Return the share of the 5-grams of both documents that they have in common."""
    common = len(np.intersect1d(first, second, assume_unique=True))
    union = len(first) + len(second) - common
    return common / union if union else 0.0


@lru_cache(maxsize=16)
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
    rows = b"".join([PACK_ROW(*row) for row in matrix.to_rows()])  # half of what np.array takes
    return np.frombuffer(rows, "<u4").reshape(len(offsets) - 1, NUM_PERMUTATIONS)


def band_keys(texts: Sequence[str], threshold: float) -> np.ndarray:
    """Return 64-bit keys, [texts, bands]; documents that share a key of a band are candidates.

    A text without words resembles no other: it gets keys of its own. ASCII is faster on its own.
    """
    keys = np.empty((len(texts), banding(threshold)[0]), np.uint64)
    for chosen in batches_by_script(texts):
        keys[chosen] = _band_keys([texts[number] for number in chosen], threshold)
    return keys


def _band_keys(texts: Sequence[str], threshold: float) -> np.ndarray:
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


class Families:
    """Union-find over documents; the root of a family is its first member in reading order."""

    def __init__(self, count: int) -> None:
        self._parents = np.arange(count, dtype=np.uint32 if count < 1 << 32 else np.uint64)

    def root(self, number: int) -> int:
        """Return the first member of the document's family."""
        parents = self._parents
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = int(parents[number])
        return number

    def join(self, first: int, second: int) -> None:
        """Make one family of two."""
        low, high = sorted((self.root(first), self.root(second)))
        self._parents[high] = low

    def later_members(self) -> Iterator[int]:
        """Yield, in order, the documents that are not the first of their family."""
        for start in range(0, len(self._parents), BLOCK):
            block = self._parents[start : start + BLOCK]
            own = np.arange(start, start + len(block), dtype=block.dtype)
            yield from (np.flatnonzero(block != own) + start).tolist()


class GramSets:
    """Cache of the 5-grams of documents, read again where they are not among those used last."""

    def __init__(self, grams_of: Callable[[int], Shingles]) -> None:
        self._grams_of = grams_of
        self._held: OrderedDict[int, Shingles] = OrderedDict()
        self._bytes = 0

    def __getitem__(self, number: int) -> Shingles:
        if number in self._held:
            self._held.move_to_end(number)
            return self._held[number]
        grams = self._held[number] = self._grams_of(number)
        self._bytes += grams.nbytes
        while self._bytes > HELD_BYTES and len(self._held) > 1:
            self._bytes -= self._held.popitem(last=False)[1].nbytes
        return grams


def connect(bucket: Sequence[int], families: Families, grams: GramSets, threshold: float) -> None:
    """Join the families of all similar pairs of a bucket; pairs of one family are not compared."""
    met: list[list[int]] = []
    for number in bucket:
        joined = [number]
        others = []
        for members in met:
            is_one = families.root(members[0]) == families.root(number) or any(
                is_similar(grams[number], grams[other], threshold) for other in members
            )
            if is_one:
                families.join(number, members[0])
                joined = members + joined
            else:
                others.append(members)
        met = [*others, joined]


def is_similar(first: Shingles, second: Shingles, threshold: float) -> bool:
    """Return whether the similarity of two sets of grams reaches the threshold (not if empty)."""
    least, most = sorted((len(first), len(second)))
    return 0 < threshold * most <= least and jaccard(first, second) >= threshold
