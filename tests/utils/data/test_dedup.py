"""Duplicates are found as a brute-force comparison of all pairs finds them."""

import itertools
import random
import re

import numpy as np
import pytest

from utils.data.dedup import (
    MISS_PROBABILITY,
    NUM_PERMUTATIONS,
    band_keys,
    banding,
    exact_duplicates,
    jaccard,
    near_duplicates,
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


def _brute_force(texts, threshold):
    """Compare all pairs, then spread the smallest number through every connected family."""
    grams = [_grams(text) for text in texts]
    first_of = list(range(len(texts)))
    pairs = [
        (one, two)
        for one, two in itertools.combinations(range(len(texts)), 2)
        if len(grams[one] & grams[two]) >= threshold * len(grams[one] | grams[two])
    ]
    while True:
        before = list(first_of)
        for one, two in pairs:
            first_of[one] = first_of[two] = min(first_of[one], first_of[two])
        if first_of == before:
            return {number: first for number, first in enumerate(first_of) if first != number}


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


def _near(texts, threshold):
    alive = np.ones(len(texts), bool)
    return near_duplicates(
        band_keys(texts, threshold), alive, threshold, lambda number: shingles(texts[number])
    )


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_near_duplicates_are_those_of_a_comparison_of_all_pairs(threshold):
    texts = _corpus()
    assert _near(texts, threshold) == _brute_force(texts, threshold)


def test_jaccard_is_that_of_the_oracle():
    texts = _corpus()
    for first, second in itertools.pairwise(texts[:100]):
        one, two = _grams(first), _grams(second)
        expected = len(one & two) / len(one | two)
        assert jaccard(shingles(first), shingles(second)) == pytest.approx(expected)


def test_of_a_chain_only_the_first_stays():
    chance = random.Random(1)
    base = " ".join(chance.choices(WORDS, k=300))
    chain = [base]
    for _ in range(6):
        chain.append(_edited(chain[-1], 3, chance))
    assert jaccard(shingles(chain[0]), shingles(chain[-1])) < 0.8
    assert _near(chain, 0.8) == dict.fromkeys(range(1, 7), 0) == _brute_force(chain, 0.8)


def test_the_order_changes_which_one_stays_and_not_how_many():
    texts = _corpus()
    assert len(_near(texts, 0.8)) == len(_near(texts[::-1], 0.8))


def test_a_document_that_is_dropped_already_connects_nothing():
    texts = _corpus()
    keys = band_keys(texts, 0.8)
    alive = np.array([number % 3 > 0 for number in range(len(texts))])
    near = near_duplicates(keys, alive, 0.8, lambda number: shingles(texts[number]))
    numbers = np.flatnonzero(alive).tolist()
    oracle = _brute_force([texts[number] for number in numbers], 0.8)
    assert near == {numbers[one]: numbers[first] for one, first in oracle.items()}


def test_texts_without_words_are_never_near_duplicates():
    assert _near(["!!! ???", "--- ...", "..."], 0.8) == {}


def test_texts_without_words_are_not_even_compared():
    texts = ["." * length for length in range(1, 3000)]

    def refuse(number):
        raise AssertionError(f"text {number} was read again")

    alive = np.ones(len(texts), bool)
    assert near_duplicates(band_keys(texts, 0.8), alive, 0.8, refuse) == {}


def test_thousands_of_copies_of_one_text_cost_no_square_of_time():
    texts = [
        f"the same boilerplate notice about cookies and privacy on page {n}" for n in range(5000)
    ]
    assert len(_near(texts, 0.5)) == 4999


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


def test_exact_duplicates_point_to_the_first_one():
    digests = np.array([b"b" * 16, b"a" * 16, b"b" * 16, b"c" * 16, b"a" * 16], "V16")
    assert exact_duplicates(digests).tolist() == [0, 1, 0, 3, 1]


def test_the_digest_sees_words_and_not_white_space():
    assert text_digest("a  b\n\nc ") == text_digest("a b c")
    assert text_digest("a b c") != text_digest("a b C")
    assert len(text_digest("")) == 16
