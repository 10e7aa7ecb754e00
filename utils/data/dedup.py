"""Exact and near-duplicates, the later one in reading order dropped.

Two documents are near-duplicates when the Jaccard similarity of their sets of word 5-grams reaches
the threshold. MinHash and banding only propose pairs; every pair is then checked exactly, so no
document is dropped by chance, and the result depends on nothing but the texts and their order.

Reference: Broder, On the resemblance and containment of documents (1997); Leskovec, Rajaraman and
Ullman, Mining of Massive Datasets, chapter 3.
"""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import xxhash

NGRAM = 5
NUM_PERMUTATIONS = 128
MISS_PROBABILITY = 0.005
"""A pair exactly at the threshold may escape the banding this often; closer pairs far less."""
CACHED_SETS = 20_000
"""Shingle sets kept in memory during the exact check (a few hundred values each)."""

ASCII_WORDS = re.compile(r"[a-z0-9_]+", re.ASCII)
WORDS = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]|[^\W\u0e00-\u0eff\u3040-\u9fff]+")
"""Scripts written without spaces (Thai, Lao, Japanese, Chinese) count each character as a word."""
MIX = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5,
     0xD6E8FEB86659FD93], dtype=np.uint64,
)  # fmt: skip
"""Odd 64-bit constants: word hashes are combined in order, so that word order matters."""

Shingles = np.ndarray
"""Sorted distinct 64-bit hashes of a document's word 5-grams."""


def text_digest(text: str) -> bytes:
    """Return 16 bytes that are equal for texts that differ in white space only."""
    return xxhash.xxh3_128_digest(" ".join(text.split()).encode("utf-8", "replace"))


def shingles(text: str) -> Shingles:
    """Return the document's distinct 5-grams as hashes; fewer than five words make one gram."""
    folded = text.lower()
    words = (ASCII_WORDS if folded.isascii() else WORDS).findall(folded)
    if not words:
        return np.empty(0, np.uint64)
    hashes = np.fromiter(map(_word_hash, words), np.uint64, len(words))
    hashes = np.pad(hashes, (0, max(NGRAM - len(hashes), 0)))
    count = len(hashes) - NGRAM + 1
    grams = np.zeros(count, np.uint64)
    for offset in range(NGRAM):
        grams = (grams ^ hashes[offset : offset + count]) * MIX[offset]
        grams ^= grams >> np.uint64(32)
    return np.unique(grams)


@lru_cache(maxsize=200_000)
def _word_hash(word: str) -> int:
    return xxhash.xxh3_64_intdigest(word.encode("utf-8", "replace"))


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


@lru_cache(maxsize=1)
def _sketch() -> Any:
    from datasketch.minhash import MinHash

    return MinHash(num_perm=NUM_PERMUTATIONS, seed=1, hashfunc=int)


def band_keys(grams: Shingles, threshold: float) -> np.ndarray:
    """Return one 64-bit key a band, shape [bands]; documents that share a key are candidates."""
    bands, rows = banding(threshold)
    sketch = _sketch()
    sketch.clear()
    sketch.update_batch((grams >> np.uint64(32)).tolist())
    parts = sketch.hashvalues[: bands * rows].reshape(bands, rows)
    keys = [xxhash.xxh3_64_intdigest(part.tobytes(), seed=band) for band, part in enumerate(parts)]
    return np.array(keys, np.uint64)


def exact_duplicates(digests: np.ndarray) -> np.ndarray:
    """Return for each document the index of the first one with its digest (its own if none).

    `digests`: shape [documents], any dtype that can be sorted (16-byte values).
    """
    _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    return first[inverse.reshape(-1)]


def near_duplicates(
    keys: np.ndarray,
    sizes: np.ndarray,
    threshold: float,
    grams_of: Callable[[int], Shingles],
    watch: Callable[[int], object] = lambda number: None,
) -> dict[int, int]:
    """Return {dropped document: kept earlier document that it resembles}.

    `keys`: band keys, shape [documents, bands]; `sizes`: number of 5-grams, 0 to leave a document
    out. `grams_of(i)` reads the 5-grams of a document again; `watch(i)` is called for progress.
    """
    cached = lru_cache(maxsize=CACHED_SETS)(grams_of)
    kept: dict[tuple[int, int], list[int]] = {}
    dropped: dict[int, int] = {}
    for number, shared in _candidates(keys, sizes):
        watch(number)
        buckets = [(int(band), int(keys[number, band])) for band in shared]
        earlier = {other for bucket in buckets for other in kept.get(bucket, ())}
        size = sizes[number]
        for other in sorted(earlier):
            least, most = sorted((size, sizes[other]))
            if least >= threshold * most and jaccard(cached(number), cached(other)) >= threshold:
                dropped[number] = other
                break
        else:
            for bucket in buckets:
                kept.setdefault(bucket, []).append(number)
    return dropped


def _candidates(keys: np.ndarray, sizes: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (document, bands whose key it shares with another one) in reading order."""
    present = np.flatnonzero(sizes)
    shared = np.zeros(keys.shape, bool)
    for band in range(keys.shape[1]):
        _, inverse, counts = np.unique(keys[present, band], return_inverse=True, return_counts=True)
        shared[present, band] = counts[inverse.reshape(-1)] > 1
    for number in np.flatnonzero(shared.any(axis=1)).tolist():
        yield number, np.flatnonzero(shared[number])
