"""Vectorised 5-grams are those of a regular expression and tuples of words."""

import random
import re
from itertools import chain

import numpy as np
import pytest

from utils.data.dedup.minhash import jaccard
from utils.data.dedup.shingling import gram_hashes, shingles

WORDS = re.compile(
    r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]|[^\W\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]+"
)
CHINESE = "\u4eca\u5929\u5929\u6c14\u5f88\u597d\u6211\u4eec\u53bb\u516c\u56ed\u6563\u6b65"
ALPHABET = (
    "abcXYZ019_ .,-\n\t\u00e9\u00c9\u00df\u0416\u03a3\u0915\u093f\u0e01"
    "\u3042\u4eca\ud55c\U0001f600\U0001d400"
)


def _grams(text):
    """The oracle's own 5-grams: tuples of words, folded letter by letter."""
    words = ["".join(letter.lower()[0] for letter in word) for word in WORDS.findall(text)]
    words += [None] * (5 - len(words))
    return [tuple(words[at : at + 5]) for at in range(len(words) - 4)] if words[0] else []


def _random_texts(count):
    chance = random.Random(3)
    return ["".join(chance.choices(ALPHABET, k=chance.randrange(60))) for _ in range(count)]


TEXTS = ["", "one", "one two three four", "a b c d e", "A, b; C d-e f", "...", CHINESE]


@pytest.mark.parametrize("texts", [TEXTS, _random_texts(400), [], [""], ["a"], ["a\nb c d e f"]])
def test_grams_are_those_of_the_oracle(texts):
    hashes, offsets = gram_hashes(texts)
    expected = [_grams(text) for text in texts]
    assert np.diff(offsets).tolist() == [len(grams) for grams in expected]
    known = {}
    for gram, value in zip(chain.from_iterable(expected), hashes.tolist(), strict=True):
        assert known.setdefault(gram, value) == value
    assert len(set(known.values())) == len(known)


def test_a_text_has_the_same_grams_alone_and_among_others():
    texts = [*TEXTS, *_random_texts(50)]
    hashes, offsets = gram_hashes(texts)
    for number, text in enumerate(texts):
        own = hashes[offsets[number] : offsets[number + 1]]
        assert shingles(text).tolist() == sorted(set(own.tolist()))


def test_ascii_has_the_same_grams_beside_other_scripts():
    assert gram_hashes(["one two three four five six"])[0].tolist() == (
        gram_hashes(["one two three four five six", CHINESE])[0][:2].tolist()
    )


def test_long_words_and_long_texts_are_told_apart():
    long = "x" * 300_000
    assert shingles(long) != shingles(long + "x")
    text = " ".join(map(str, range(100_000)))
    assert len(shingles(text)) == 100_000 - 4


def test_word_order_counts_and_case_and_punctuation_do_not():
    base = shingles("one two three four five six seven")
    assert jaccard(base, shingles("ONE, two! three (four) five: six; seven.")) == 1.0
    assert jaccard(base, shingles("seven six five four three two one")) == 0.0


def test_scripts_without_spaces_are_compared_by_character():
    assert len(shingles(CHINESE)) == len(CHINESE) - 4
    assert 0 < jaccard(shingles(CHINESE), shingles(CHINESE[:-1] + "\u8dd1")) < 1
