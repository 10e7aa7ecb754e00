"""Measures that tell prose from the rest of a page, one number for a document each.

A profile (config/filters/) sets the limits. Words are what stands between white space; fractions of
characters leave white space out. Each measure names its source:

Gopher   Rae et al., Scaling Language Models (2021), appendix A.1.1, table A1
C4       Raffel et al., Exploring the Limits of Transfer Learning (2020), section 2.2
FineWeb  Penedo et al., The FineWeb Datasets (2024), section 3.6
"""

import re
from collections import Counter
from collections.abc import Callable
from functools import cached_property, partial

import numpy as np

LETTER = re.compile(r"[^\W\d_]")
BULLETS = ("-", "*", "\u2022", "\u2023", "\u25cf", "\u25aa", "\u2043")
ELLIPSES = ("...", "\u2026")
ENDS = (".", "!", "?", '."', '!"', '?"', ".'", "\u201d", "\u3002", "\uff01", "\uff1f")
STOP_WORDS = frozenset(["the", "be", "to", "of", "and", "that", "have", "with"])
SHORT_LINE = 30
SENTENCE_END = re.compile(r"[.!?](?:[\"')\]]*)(?:\s|\Z)")
MIX = np.uint64(0x9E3779B97F4A7C15)


class Page:
    """A document with its words, lines and paragraphs, cut when they are first asked for."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def words(self) -> list[str]:
        """What stands between white space."""
        return self.text.split()

    @cached_property
    def lines(self) -> list[str]:
        """Lines that are not blank, without the white space around them."""
        return [line.strip() for line in self.text.split("\n") if not line.isspace() and line]

    @cached_property
    def paragraphs(self) -> list[str]:
        """What stands between blank lines."""
        return [part.strip() for part in self.text.split("\n\n") if not part.isspace() and part]

    @cached_property
    def word_numbers(self) -> np.ndarray:
        """A number for each word, equal for equal words; uint64, shape [words]."""
        known: dict[str, int] = {}
        return np.array([known.setdefault(word, len(known)) for word in self.words], np.uint64)

    @cached_property
    def word_lengths(self) -> np.ndarray:
        """Characters of each word; int64, shape [words]."""
        return np.fromiter(map(len, self.words), np.int64, len(self.words))

    def grams(self, size: int) -> np.ndarray:
        """Return a number for each run of `size` words, equal for equal runs; uint64."""
        numbers = self.word_numbers
        count = max(len(numbers) - size + 1, 0)
        grams = np.zeros(count, np.uint64)
        for place in range(size):
            grams = (grams ^ numbers[place : place + count]) * MIX
            grams ^= grams >> np.uint64(29)
        return grams


def words(page: Page) -> float:
    """Count the words (Gopher: 50 to 100,000)."""
    return len(page.words)


def mean_word_length(page: Page) -> float:
    """Return characters for each word (Gopher: 3 to 10)."""
    return _share(int(page.word_lengths.sum()), len(page.words))


def hashes_per_word(page: Page) -> float:
    """Return number signs for each word (Gopher: at most 0.1)."""
    return _share(page.text.count("#"), len(page.words))


def ellipses_per_word(page: Page) -> float:
    """Return ellipses for each word (Gopher: at most 0.1)."""
    return _share(sum(map(page.text.count, ELLIPSES)), len(page.words))


def words_with_letter(page: Page) -> float:
    """Return the share of words with a letter in them (Gopher: at least 0.8)."""
    return _share(sum(LETTER.search(word) is not None for word in page.words), len(page.words))


def stop_words(page: Page) -> float:
    """Count which of eight common English words stand in the text (Gopher: at least 2)."""
    return len(STOP_WORDS.intersection(page.text.lower().split()))


def bullet_lines(page: Page) -> float:
    """Return the share of lines that begin with a bullet (Gopher: at most 0.9)."""
    return _share(sum(line.startswith(BULLETS) for line in page.lines), len(page.lines))


def ellipsis_lines(page: Page) -> float:
    """Return the share of lines that end with an ellipsis (Gopher: at most 0.3)."""
    return _share(sum(line.endswith(ELLIPSES) for line in page.lines), len(page.lines))


def duplicate_lines(page: Page) -> float:
    """Return the share of lines that stood there before (Gopher: at most 0.3)."""
    return _share(len(page.lines) - len(set(page.lines)), len(page.lines))


def duplicate_line_characters(page: Page) -> float:
    """Return the share of characters in such lines (Gopher: at most 0.2; FineWeb: 0.1)."""
    return _repeated_characters(page.lines)


def duplicate_paragraphs(page: Page) -> float:
    """Return the share of paragraphs that stood there before (Gopher: at most 0.3)."""
    return _share(len(page.paragraphs) - len(set(page.paragraphs)), len(page.paragraphs))


def duplicate_paragraph_characters(page: Page) -> float:
    """Return the share of characters in such paragraphs (Gopher: at most 0.2)."""
    return _repeated_characters(page.paragraphs)


def top_gram_characters(size: int, page: Page) -> float:
    """Return the share of characters in the most frequent run of `size` words (Gopher)."""
    grams = page.grams(size)
    if not len(grams):
        return 0.0
    _, first, counts = np.unique(grams, return_index=True, return_counts=True)
    most = int(counts.argmax())
    if counts[most] < 2:
        return 0.0
    length = int(page.word_lengths[first[most] : first[most] + size].sum())
    return _share(length * int(counts[most]), int(page.word_lengths.sum()))


def duplicate_gram_characters(size: int, page: Page) -> float:
    """Return the share of characters in repeated runs of `size` words (Gopher)."""
    grams = page.grams(size)
    if not len(grams):
        return 0.0
    _, first = np.unique(grams, return_index=True)
    again = np.ones(len(grams), bool)
    again[first] = False
    covered = np.convolve(again, np.ones(size, np.int64)) > 0
    return _share(int(page.word_lengths[covered].sum()), int(page.word_lengths.sum()))


def lines_with_end(page: Page) -> float:
    """Return the share of lines that end like a sentence (FineWeb: at least 0.12)."""
    return _share(sum(line.endswith(ENDS) for line in page.lines), len(page.lines))


def short_lines(page: Page) -> float:
    """Return the share of lines under 30 characters (FineWeb: at most 0.67)."""
    return _share(sum(len(line) < SHORT_LINE for line in page.lines), len(page.lines))


def sentences(page: Page) -> float:
    """Count ends of sentences (C4: at least 3)."""
    return len(SENTENCE_END.findall(page.text))


def curly_brackets(page: Page) -> float:
    """Count curly brackets, which stand in code (C4: none)."""
    return page.text.count("{")


def lorem_ipsum(page: Page) -> float:
    """Count fillers of page templates (C4: none)."""
    return page.text.lower().count("lorem ipsum")


def _share(part: float, whole: int) -> float:
    return part / whole if whole else 0.0


def _repeated_characters(parts: list[str]) -> float:
    counts = Counter(parts)
    again = sum(len(part) * (count - 1) for part, count in counts.items())
    return _share(again, sum(map(len, parts)))


MEASURES: dict[str, Callable[[Page], float]] = {
    measure.__name__: measure
    for measure in (
        words, mean_word_length, hashes_per_word, ellipses_per_word, words_with_letter, stop_words,
        bullet_lines, ellipsis_lines, duplicate_lines, duplicate_line_characters,
        duplicate_paragraphs, duplicate_paragraph_characters, lines_with_end, short_lines,
        sentences, curly_brackets, lorem_ipsum,
    )
}  # fmt: skip
MEASURES |= {f"top_{n}gram_characters": partial(top_gram_characters, n) for n in (2, 3, 4)}
MEASURES |= {
    f"duplicate_{n}gram_characters": partial(duplicate_gram_characters, n) for n in range(5, 11)
}
