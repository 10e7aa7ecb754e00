"""Duplicates are found as a brute-force comparison of all pairs finds them."""

import itertools
import random

import numpy as np
import pytest

from tests.benchmarks.corpus import WORDS, edited, gram_set
from utils.data.corpus import duplicates
from utils.data.corpus.corpus import Fate
from utils.data.corpus.duplicates import exact_families, near_families
from utils.data.dedup.minhash import banding, jaccard
from utils.data.dedup.shingling import shingles
from utils.data.work.workers import Workers


def _brute_force(texts, threshold):
    """Compare all pairs, then spread the smallest number through every connected family."""
    grams = [gram_set(text) for text in texts]
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


def _near(corpus, threshold):
    with Workers(1) as workers:
        families = near_families(corpus, banding(threshold)[0], threshold, workers)
    dropped = np.flatnonzero(corpus.fates == Fate.NEAR_DUPLICATE).tolist()
    assert dropped == list(families.later_members())
    return {number: families.root(number) for number in dropped}


def _exact(corpus):
    families = exact_families(corpus)
    dropped = np.flatnonzero(corpus.fates == Fate.EXACT_DUPLICATE).tolist()
    return {number: families.root(number) for number in dropped}


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_near_duplicates_are_those_of_a_comparison_of_all_pairs(
    corpus_of, threshold, related_texts
):
    texts = related_texts
    assert _near(corpus_of(texts, threshold), threshold) == _brute_force(texts, threshold)


@pytest.mark.parametrize("small", [1, 2, 100])
def test_pairs_of_small_and_of_large_buckets_are_found(
    corpus_of, monkeypatch, related_texts, small
):
    monkeypatch.setattr(duplicates, "SMALL_BUCKET", small)
    monkeypatch.setattr(duplicates, "PAIRS_AT_ONCE", 7)
    monkeypatch.setattr(duplicates, "MAX_PAIRS", 50)
    assert _near(corpus_of(related_texts), 0.8) == _brute_force(related_texts, 0.8)


def test_a_sort_in_many_ranges_finds_the_same(corpus_of, monkeypatch, related_texts):
    monkeypatch.setattr(duplicates, "SORT_BYTES", 30 * duplicates.BYTES_PER_KEY)
    texts = related_texts
    texts = [*texts, *texts[:20]]
    corpus = corpus_of(texts, size=7)
    assert _exact(corpus) == {number + len(texts) - 20: number for number in range(20)}
    assert _near(corpus, 0.8) == _brute_force(texts[:-20], 0.8)


def test_of_a_chain_only_the_first_stays(corpus_of):
    chance = random.Random(1)
    base = " ".join(chance.choices(WORDS, k=300))
    chain = [base]
    for _ in range(6):
        chain.append(edited(chain[-1], 3, chance))
    assert jaccard(shingles(chain[0]), shingles(chain[-1])) < 0.8
    assert _brute_force(chain, 0.8) == dict.fromkeys(range(1, 7), 0)
    assert _near(corpus_of(chain), 0.8) == dict.fromkeys(range(1, 7), 0)


def test_exact_copies_connect_nothing(corpus_of, related_texts):
    texts = related_texts
    corpus = corpus_of(texts)
    alive = np.array([number % 3 > 0 for number in range(len(texts))])
    corpus.fates[~alive] = Fate.EXACT_DUPLICATE
    numbers = np.flatnonzero(alive).tolist()
    oracle = _brute_force([texts[number] for number in numbers], 0.8)
    assert _near(corpus, 0.8) == {numbers[one]: numbers[first] for one, first in oracle.items()}


def test_texts_that_differ_in_white_space_only_are_the_same(corpus_of):
    corpus = corpus_of(["b c", "a", "b\n c", "c", "a", "b  c", "b C"], size=3)
    assert _exact(corpus) == {2: 0, 4: 1, 5: 0}


def test_half_a_digest_is_not_enough(corpus_of):
    corpus = corpus_of(["one", "two", "three"], size=1)
    unit = corpus.units[0]
    arrays = unit.store.arrays(unit.name)
    held = {name: arrays[name] for name in arrays.names()}
    first = corpus.units[1].column("digests")[0, 0]
    held["digests"][0, 0] = held["keys"][0, 0] = first
    unit.store.put(unit.name, held, unit.record())
    assert _exact(corpus) == {}


def test_texts_without_words_are_not_even_compared(corpus_of, monkeypatch):
    corpus = corpus_of(["." * length for length in range(1, 3000)], size=1000)
    monkeypatch.setattr(duplicates, "connect", None)
    assert _near(corpus, 0.8) == {}


def test_thousands_of_copies_of_one_text_cost_no_square_of_time(corpus_of):
    texts = [
        f"the same boilerplate notice about cookies and privacy on page {n}" for n in range(5000)
    ]
    assert len(_near(corpus_of(texts, 0.5, size=1000), 0.5)) == 4999


def test_an_empty_corpus_has_no_duplicates(corpus_of):
    assert _exact(corpus_of([])) == {}
    assert _near(corpus_of([]), 0.8) == {}
