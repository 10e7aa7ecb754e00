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
    shingles,
    text_digest,
)

WORDS = [f"w{number}" for number in range(400)]


def _grams(text):
    """The oracle's own 5-grams: tuples of words."""
    words = re.findall(r"\w+", text.lower())
    words += [None] * (5 - len(words))
    return {tuple(words[at : at + 5]) for at in range(len(words) - 4)}


def _brute_force(texts, threshold):
    dropped = {}
    grams = [_grams(text) for text in texts]
    for number, first in enumerate(grams):
        for other, second in enumerate(grams[:number]):
            similarity = len(first & second) / len(first | second)
            if other not in dropped and similarity >= threshold:
                dropped[number] = other
                break
    return dropped


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
    grams = [shingles(text) for text in texts]
    keys = np.array([band_keys(gram, threshold) for gram in grams])
    sizes = np.array([len(gram) for gram in grams])
    return near_duplicates(keys, sizes, threshold, lambda number: grams[number])


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_near_duplicates_are_those_of_a_comparison_of_all_pairs(threshold):
    texts = _corpus()
    assert _near(texts, threshold) == _brute_force(texts, threshold)


def test_shingles_count_what_the_oracle_counts():
    for text in [*_corpus()[:50], "", "one", "one two three four", "a b c d e", "A, b; C d-e f"]:
        assert len(shingles(text)) == (len(_grams(text)) if text else 0)


def test_jaccard_is_that_of_the_oracle():
    texts = _corpus()
    for first, second in itertools.pairwise(texts[:100]):
        one, two = _grams(first), _grams(second)
        expected = len(one & two) / len(one | two)
        assert jaccard(shingles(first), shingles(second)) == pytest.approx(expected)


def test_word_order_counts_and_case_and_punctuation_do_not():
    base = shingles("one two three four five six seven")
    assert jaccard(base, shingles("ONE, two! three (four) five: six; seven.")) == 1.0
    assert jaccard(base, shingles("seven six five four three two one")) == 0.0


def test_scripts_without_spaces_are_compared_by_character():
    text = "\u4eca\u5929\u5929\u6c14\u5f88\u597d\u6211\u4eec\u53bb\u516c\u56ed\u6563\u6b65"
    assert len(shingles(text)) == len(text) - 4
    assert 0 < jaccard(shingles(text), shingles(text[:-1] + "\u8dd1")) < 1


def test_the_earlier_one_of_a_chain_stays():
    chance = random.Random(1)
    base = " ".join(chance.choices(WORDS, k=300))
    chain = [base]
    for _ in range(6):
        chain.append(_edited(chain[-1], 3, chance))
    assert _near(chain, 0.8) == _brute_force(chain, 0.8)
    assert 0 not in _near(chain, 0.8)


def test_texts_without_words_are_never_near_duplicates():
    assert _near(["!!! ???", "--- ...", "..."], 0.8) == {}


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


def test_exact_duplicates_point_to_the_first_one():
    digests = np.array([b"b" * 16, b"a" * 16, b"b" * 16, b"c" * 16, b"a" * 16], "V16")
    assert exact_duplicates(digests).tolist() == [0, 1, 0, 3, 1]


def test_the_digest_sees_words_and_not_white_space():
    assert text_digest("a  b\n\nc ") == text_digest("a b c")
    assert text_digest("a b c") != text_digest("a b C")
    assert len(text_digest("")) == 16
