"""Keys and similarities of documents agree with plain sets of words."""

import itertools
import random
import re

import numpy as np
import pytest

from utils.data.dedup import (
    MISS_PROBABILITY,
    NUM_PERMUTATIONS,
    Families,
    GramSets,
    banding,
    jaccard,
    signatures,
    text_digest,
)
from utils.data.shingling import gram_hashes, shingles

WORDS = [f"w{number}" for number in range(400)]


def _grams(text):
    """The oracle's own 5-grams: tuples of words."""
    words = re.findall(r"\w+", text.lower())
    words += [None] * (5 - len(words))
    return {tuple(words[at : at + 5]) for at in range(len(words) - 4)}


def _edited(text, edits, chance):
    words = text.split()
    for _ in range(edits):
        words[chance.randrange(len(words))] = chance.choice(WORDS)
    return " ".join(words)


def _corpus():
    """Families of texts at every distance, and unrelated ones, in random order."""
    chance = random.Random(7)
    texts = []
    for _ in range(40):
        base = " ".join(chance.choices(WORDS, k=chance.randrange(60, 200)))
        texts += [base] + [_edited(base, edits, chance) for edits in (1, 2, 3, 5, 9, 20)]
    texts += [" ".join(chance.choices(WORDS, k=80)) for _ in range(60)]
    chance.shuffle(texts)
    return texts


def test_jaccard_is_that_of_the_oracle():
    texts = _corpus()
    for first, second in itertools.pairwise(texts[:100]):
        one, two = _grams(first), _grams(second)
        expected = len(one & two) / len(one | two)
        assert jaccard(shingles(first), shingles(second)) == pytest.approx(expected)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
def test_banding_misses_a_pair_at_the_threshold_rarely(threshold):
    bands, rows = banding(threshold)
    assert bands * rows <= NUM_PERMUTATIONS
    assert (1 - threshold**rows) ** bands <= MISS_PROBABILITY


def test_the_default_threshold_is_split_into_42_bands_of_6():
    assert banding(0.8) == (42, 6)


def test_signatures_estimate_the_similarity():
    texts = _corpus()[:60]
    rows = signatures(*gram_hashes(texts))
    errors = [
        (rows[one] == rows[two]).mean() - jaccard(shingles(texts[one]), shingles(texts[two]))
        for one, two in itertools.combinations(range(60), 2)
    ]
    assert abs(np.mean(errors)) < 0.005
    assert np.std(errors) < 0.04  # sqrt(J (1 - J) / 256) is at most 0.031


def test_the_digest_sees_words_and_not_white_space():
    assert text_digest("a  b\n\nc ") == text_digest("a b c")
    assert text_digest("a b c") != text_digest("a b C")
    assert len(text_digest("")) == 16


def test_gram_sets_are_read_again_when_the_memory_is_used_up(monkeypatch):
    monkeypatch.setattr("utils.data.dedup.HELD_BYTES", 8 * 25)
    read = []

    def grams_of(number):
        read.append(number)
        return np.full(10, number, np.uint64)

    sets = GramSets(grams_of)
    assert [int(sets[number][0]) for number in (1, 2, 1, 3, 1, 2)] == [1, 2, 1, 3, 1, 2]
    assert read == [1, 2, 3, 2]


def test_families_are_known_by_their_first_member():
    families = Families(6)
    families.join(5, 3)
    families.join(4, 5)
    families.join(1, 2)
    assert [families.root(number) for number in range(6)] == [0, 1, 1, 3, 3, 3]
    assert list(families.later_members()) == [2, 4, 5]
