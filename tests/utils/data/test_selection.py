"""Splits, samples and mixtures depend on the documents' own hashes."""

import numpy as np
import pytest
import xxhash

from utils.data.selection import balance_mixture, sample_mask, validation_mask

RANKS = np.array([xxhash.xxh3_64_intdigest(b"%d" % n) for n in range(20_000)], np.uint64)


def test_the_share_for_training_is_the_wanted_one():
    assert validation_mask(RANKS, 0.9).mean() == pytest.approx(0.1, abs=0.006)


def test_more_documents_move_nothing_from_one_split_to_the_other():
    assert (validation_mask(RANKS[:500], 0.9) == validation_mask(RANKS, 0.9)[:500]).all()


@pytest.mark.parametrize("ratio", [0.001, 0.5, 0.98, 0.9999])
@pytest.mark.parametrize("count", [2, 3, 10])
def test_no_split_of_a_small_corpus_is_empty(ratio, count):
    mask = validation_mask(RANKS[:count], ratio)
    assert 0 < mask.sum() < count


def test_a_sample_has_about_the_wanted_size_and_small_corpora_are_taken_whole():
    characters = np.full(len(RANKS), 100)
    mask = sample_mask(RANKS, characters, 500_000)
    assert characters[mask].sum() == pytest.approx(500_000, rel=0.05)
    assert sample_mask(RANKS[:10], characters[:10], 1000).all()
    assert sample_mask(RANKS[:10], characters[:10], 1).sum() == 1


def test_a_mixture_gets_its_shares_of_the_characters():
    origins = np.arange(len(RANKS)) % 3
    characters = 50 + (RANKS % np.uint64(900)).astype(np.int64)
    alive = np.ones(len(RANKS), bool)
    alive[::7] = False
    stays = balance_mixture(alive, origins, characters, RANKS, [6.0, 3.0, 1.0])
    assert not (stays & ~alive).any()
    held = [characters[stays & (origins == source)].sum() for source in range(3)]
    assert np.array(held) / sum(held) == pytest.approx([0.6, 0.3, 0.1], abs=0.001)
    assert (stays & (origins == 0)).sum() == (alive & (origins == 0)).sum()


def test_a_source_that_gave_nothing_does_not_empty_the_others():
    origins = np.zeros(10, int)
    alive = np.ones(10, bool)
    assert balance_mixture(alive, origins, np.full(10, 9), RANKS[:10], [1.0, 1.0]).all()
