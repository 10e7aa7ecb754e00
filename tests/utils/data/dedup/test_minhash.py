"""Keys and similarities of documents agree with plain sets of words."""

import itertools

import numpy as np
import pytest

from tests.benchmarks.corpus import gram_set, similarity
from utils.data.dedup.minhash import (
    MISS_PROBABILITY,
    NUM_PERMUTATIONS,
    Families,
    GramSets,
    banding,
    jaccard,
    signatures,
    text_digest,
)
from utils.data.dedup.shingling import gram_hashes, shingles


def test_jaccard_is_that_of_the_oracle(related_texts):
    for first, second in itertools.pairwise(related_texts[:100]):
        expected = similarity(gram_set(first), gram_set(second))
        assert jaccard(shingles(first), shingles(second)) == pytest.approx(expected)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
def test_banding_misses_a_pair_at_the_threshold_rarely(threshold):
    bands, rows = banding(threshold)
    assert bands * rows <= NUM_PERMUTATIONS
    assert (1 - threshold**rows) ** bands <= MISS_PROBABILITY


def test_the_default_threshold_is_split_into_42_bands_of_6():
    assert banding(0.8) == (42, 6)


def test_signatures_estimate_the_similarity(related_texts):
    texts = related_texts[:60]
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
    monkeypatch.setattr("utils.data.dedup.minhash.HELD_BYTES", 8 * 25)
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
