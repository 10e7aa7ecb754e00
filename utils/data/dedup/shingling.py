"""Hashes the word n-grams of texts to 64 bits, many texts at once and in numpy only.

A word is a run of letters, digits and underscores in lower case; scripts written without spaces
(Thai, Lao, Japanese, Chinese) count each character as a word. They are 5-grams unless asked
otherwise; a text of fewer words has one gram, a text of none has no gram. Knows nothing about what
grams are compared for.

Legend: D texts, P code points of all of them, W words, G grams.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

NGRAM = 5
WORD, WORDS = re.compile(r"\w"), re.compile(r"\w+")
DOTTED_I = "\u0130"
SOLO_SCRIPTS = r"\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff"
SOLO = re.compile(f"[{SOLO_SCRIPTS}]")
CODE_POINTS = 0x110000
SURROGATES = range(0xD800, 0xE000)
MULTIPLIER = 0x9E3779B97F4A7C15
"""Base of the polynomial that hashes a word: odd, so it has an inverse modulo 2^64."""
MIX = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5,
     0xD6E8FEB86659FD93], dtype=np.uint64,
)  # fmt: skip
"""Odd 64-bit constants: word hashes are combined in order, so that word order matters."""
HALF = np.uint64(32)
BATCH_CHARACTERS = 200_000
"""Arrays of more leave the processor's cache."""

Shingles = np.ndarray
"""Sorted distinct hashes of one text's grams, uint64."""


def shingles(text: str) -> Shingles:
    """Return the distinct grams of one text."""
    return all_shingles([text])[0]


def all_shingles(texts: Sequence[str]) -> list[Shingles]:
    """Return the distinct grams of each text."""
    found = [np.empty(0, np.uint64)] * len(texts)
    for chosen in batches_by_script(texts):
        grams, offsets = gram_hashes([texts[number] for number in chosen])
        for number, start, end in zip(chosen, offsets, offsets[1:], strict=False):
            found[number] = np.unique(grams[start:end])
    return found


def batches_by_script(texts: Sequence[str]) -> Iterator[list[int]]:
    """Yield numbers of texts that are best hashed together: ASCII or not, and not too many."""
    for wanted in (True, False):
        batch: list[int] = []
        size = 0
        for number, text in enumerate(texts):
            if text.isascii() is wanted:
                batch.append(number)
                size += len(text)
            if size >= BATCH_CHARACTERS:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch


def gram_hashes(
    texts: Sequence[str], words: int = NGRAM, *, pad: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return the grams of all texts in turn (uint64 [G], repetitions stay) and where each begins.

    The second array, int64 [D + 1], ends with G. Without `pad` a text of fewer than `words` words
    has no gram.
    """
    hashes, counts = _word_hashes(texts)
    # Shorter texts are filled up with zeros to one gram, those without a word stay empty.
    padded = np.where(counts == 0, 0, np.maximum(counts, words)) if pad else counts
    if len(hashes) < padded.sum():
        wide = np.zeros(padded.sum(), np.uint64)
        wide[_within(counts) + np.repeat(_starts(padded)[:-1], counts)] = hashes
        hashes = wide
    offsets = _starts(np.maximum(padded - (words - 1), 0))
    if not offsets[-1]:
        return np.empty(0, np.uint64), offsets
    windows = len(hashes) - words + 1
    grams = np.zeros(windows, np.uint64)
    for place in range(words):
        grams ^= hashes[place : place + windows]
        grams *= MIX[place % len(MIX)]
        grams ^= grams >> HALF
    if windows == offsets[-1]:
        return grams, offsets
    inside = np.diff(offsets)
    return grams[_within(inside) + np.repeat(_starts(padded)[:-1], inside)], offsets


def _starts(counts: np.ndarray) -> np.ndarray:
    """Return where each group begins, and the end."""
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))


def _within(counts: np.ndarray) -> np.ndarray:
    """Return 0, 1, ... within each group of the given sizes."""
    starts = _starts(counts)
    return np.arange(starts[-1]) - np.repeat(starts[:-1], counts)


def _word_hashes(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return a hash of each word (uint64 [W]) and the number of words of each text (int64 [D])."""
    joined = "\n".join(texts)  # a separator between two texts ends a word
    values, begins = _ascii_words(joined) if joined.isascii() else _any_words(joined)
    up, down = powers(len(values))
    hashes = np.empty(0, np.uint64)
    if len(begins):
        # What lies between two words counts nothing, so a sum may run from one to the next.
        hashes = np.add.reduceat(up[: len(values)] * values, begins) * down[begins]
    hashes ^= hashes >> HALF
    hashes *= MIX[4]
    hashes ^= hashes >> np.uint64(29)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    places = np.searchsorted(begins, _starts(lengths + 1))
    return hashes, np.diff(places)


def _ascii_words(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Return each character in lower case (0: no part of a word), and where words begin."""
    values = np.frombuffer(text.encode("ascii").translate(_ascii_table()), np.uint8)
    is_word = np.zeros(len(values) + 1, bool)
    np.not_equal(values, 0, out=is_word[1:])
    return values, np.flatnonzero(is_word[1:] > is_word[:-1])


def _any_words(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the same for any text; some characters are a word each."""
    points = np.frombuffer(text.encode("utf-32-le", "replace"), "<u4")
    folded, solo = _tables()
    values = folded[points]
    is_word = np.zeros(len(values) + 1, bool)
    np.not_equal(values, 0, out=is_word[1:])
    alone = np.zeros(len(values) + 1, bool)
    alone[1:] = solo[points]
    return values, np.flatnonzero(is_word[1:] & (~is_word[:-1] | alone[1:] | alone[:-1]))


@lru_cache(maxsize=1)
def _ascii_table() -> bytes:
    letters = (chr(point) for point in range(128))
    return bytes(ord(one.lower()) if WORD.match(one) else 0 for one in letters).ljust(256, b"\0")


@lru_cache(maxsize=1)
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Return for each code point its lower case (0: no part of a word), and whether it is alone."""
    points = np.arange(CODE_POINTS, dtype="<u4")
    points[SURROGATES.start : SURROGATES.stop] = ord("\n")
    everything = points.tobytes().decode("utf-32-le")
    folded = np.zeros(CODE_POINTS, np.uint64)
    for found in WORDS.finditer(everything):
        lower = found[0].replace(DOTTED_I, "i").lower()  # all others stay one character
        folded[slice(*found.span())] = np.frombuffer(lower.encode("utf-32-le"), "<u4")
    solo = np.zeros(CODE_POINTS, bool)
    solo[[found.start() for found in SOLO.finditer(everything)]] = True
    folded[solo] = np.flatnonzero(solo)
    return folded, solo


def powers(least: int) -> tuple[np.ndarray, np.ndarray]:
    """Return MULTIPLIER^i and its inverse modulo 2^64, uint64 each, for i up to `least` or more."""
    return _powers(1 << max(least, 1 << 16).bit_length())


@lru_cache(maxsize=2)
def _powers(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return MULTIPLIER^i and its inverse modulo 2^64 for i < count, uint64 each."""
    pair = []
    for base in (MULTIPLIER, pow(MULTIPLIER, -1, 1 << 64)):
        row = np.ones(count, np.uint64)
        size = 1
        while (
            size < count
        ):  # doubling: powers of the second half are those of the first x base^size
            step = min(size, count - size)
            row[size : size + step] = row[:step] * np.uint64(pow(base, size, 1 << 64))
            size *= 2
        pair.append(row)
    return pair[0], pair[1]
