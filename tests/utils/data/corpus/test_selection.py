"""Splits, samples and mixtures depend on the documents' own hashes."""

import numpy as np
import pytest

from utils.config.prepare import MixtureSource
from utils.data.corpus.corpus import Fate
from utils.data.corpus.selection import balance, rank_limit, sample, split

TEXTS = [f"document {n} " + "word " * (n % 17) for n in range(3000)]


def _ranks(corpus, column=0):
    return np.concatenate([unit.column("digests")[:, column] for unit in corpus.units])


def _characters(corpus):
    return np.concatenate([unit.column("characters") for unit in corpus.units]).astype(np.int64)


def test_the_share_for_training_is_the_wanted_one(corpus_of):
    corpus = corpus_of(TEXTS, size=700)
    split(corpus, 0.9)
    assert corpus.count(Fate.VALIDATION) / len(TEXTS) == pytest.approx(0.1, abs=0.02)
    assert (corpus.fates == (_ranks(corpus) / 2.0**64 >= 0.9)).all()


def test_more_documents_move_nothing_from_one_split_to_the_other(corpus_of):
    some, all_of_them = corpus_of(TEXTS[:500]), corpus_of(TEXTS)
    split(some, 0.9)
    split(all_of_them, 0.9)
    assert (some.fates == all_of_them.fates[:500]).all()


@pytest.mark.parametrize("ratio", [0.001, 0.5, 0.98, 0.9999])
@pytest.mark.parametrize("count", [2, 3, 10])
def test_no_split_of_a_small_corpus_is_empty(corpus_of, ratio, count):
    corpus = corpus_of(TEXTS[:count], size=2)
    split(corpus, ratio)
    assert corpus.count(Fate.TRAIN) and corpus.count(Fate.VALIDATION)
    ranks, moved = _ranks(corpus), corpus.fates == Fate.VALIDATION
    assert ranks[moved].min() > ranks[~moved].max()


def _sampled(corpus, budget):
    mask = np.zeros(len(corpus), bool)
    for (unit, numbers), start in zip(sample(corpus, budget), corpus.starts, strict=False):
        assert len(numbers) <= unit.documents
        mask[numbers + start] = True
    return mask


def test_a_sample_has_about_the_wanted_size_and_small_corpora_are_taken_whole(corpus_of):
    corpus = corpus_of(TEXTS, size=700)
    corpus.fates[::5] = Fate.NEAR_DUPLICATE
    characters = _characters(corpus)
    mask = _sampled(corpus, 40_000)
    assert not mask[::5].any()
    assert characters[mask].sum() == pytest.approx(40_000, rel=0.1)
    assert _sampled(corpus, characters.sum()).sum() == corpus.count(Fate.TRAIN)
    assert _sampled(corpus, 1).sum() == 1


def _sources(*weights, **first):
    """Sources of a mixture; the first one has further settings."""
    return [
        MixtureSource(name=f"source{n}", input_path="x", weight=weight, **({} if n else first))
        for n, weight in enumerate(weights)
    ]


def test_a_mixture_gets_its_shares_of_the_characters(corpus_of):
    origins = [number // 500 % 3 for number in range(len(TEXTS))]
    corpus = corpus_of(TEXTS, size=500, origins=origins)
    corpus.fates[::7] = Fate.EXACT_DUPLICATE
    alive = corpus.fates == Fate.TRAIN
    message = balance(corpus, _sources(6.0, 3.0, 1.0))
    stays = corpus.fates == Fate.TRAIN
    assert (corpus.fates[alive & ~stays] == Fate.OVER_MIXTURE_WEIGHT).all()
    assert (corpus.fates[~alive] == Fate.EXACT_DUPLICATE).all()
    of, characters = np.array(origins), _characters(corpus)
    held = np.array([characters[stays & (of == source)].sum() for source in range(3)])
    assert held / held.sum() == pytest.approx([0.6, 0.3, 0.1], abs=0.002)
    assert (stays & (of == 0)).sum() == (alive & (of == 0)).sum()
    assert message is not None and message.startswith("source0 scarce for the weight: left out")


def test_a_cap_in_characters_is_never_passed(corpus_of):
    origins = [number // 500 % 2 for number in range(len(TEXTS))]
    of = np.array(origins)
    for cap in (3000, 20_011, 40_000):
        corpus = corpus_of(TEXTS, size=500, origins=origins)
        balance(corpus, _sources(1.0, 1.0, max_characters=cap))
        characters = _characters(corpus)
        stays = corpus.fates == Fate.TRAIN
        assert cap - 200 < characters[stays & (of == 0)].sum() <= cap
        assert stays[of == 1].all()


def test_a_source_that_gave_nothing_does_not_empty_the_others(corpus_of):
    corpus = corpus_of(TEXTS[:10])
    assert balance(corpus, _sources(1.0, 1.0)) is None
    assert corpus.count(Fate.TRAIN) == 10


@pytest.mark.parametrize("seed", range(8))
def test_the_limit_is_that_of_a_plain_sort(seed):
    chance = np.random.default_rng(seed)
    count = int(chance.integers(1, 200))
    shift = np.uint64(chance.choice([0, 30, 50]))  # few or many documents in a bin
    ranks = chance.integers(0, 1 << 64, count, np.uint64, endpoint=False) >> shift
    characters = chance.integers(1, 1000, count)
    order = np.argsort(ranks, kind="stable")
    for wanted in (0.0, 1.0, *(characters.sum() * np.linspace(0.1, 1.2, 12))):
        kept, total = 0, 0
        while kept < count and total + characters[order[kept]] / 2 <= wanted * (1 + 1e-12):
            total += characters[order[kept]]
            kept += 1
        blocks = [(ranks[:50], characters[:50]), (ranks[50:], characters[50:])]
        limit = rank_limit(lambda blocks=blocks: blocks, wanted)
        assert np.count_nonzero(ranks <= np.uint64(limit)) == max(kept, 1)
