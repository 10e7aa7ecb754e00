"""The keyed permutation: a bijection, another one for each epoch and seed, far into a run."""

import numpy as np
import pytest

from utils.data.tokens.permutation import permute, shuffled_rows


@pytest.mark.parametrize("size", [1, 2, 3, 17, 64, 1000])
def test_the_permutation_visits_each_row_once(size):
    rows = permute(np.arange(size, dtype=np.uint64), size, "key")
    assert sorted(rows.tolist()) == list(range(size))


def test_epochs_and_seeds_give_other_orders():
    first = shuffled_rows(1, np.arange(100, dtype=np.uint64), 100).tolist()
    second = shuffled_rows(1, np.arange(100, 200, dtype=np.uint64), 100).tolist()
    other = shuffled_rows(2, np.arange(100, dtype=np.uint64), 100).tolist()
    assert sorted(first) == sorted(second) == sorted(other) == list(range(100))
    assert len({tuple(first), tuple(second), tuple(other), tuple(range(100))}) == 4


def test_an_order_is_known_far_into_a_run():
    rows = shuffled_rows(1, np.array([10**15, 10**15 + 1], dtype=np.uint64), 10**9)
    assert rows.max() < 10**9 and rows[0] != rows[1]


def test_the_permutation_scatters_neighbours():
    rows = permute(np.arange(4096, dtype=np.uint64), 4096, "key").astype(float)
    correlation = np.corrcoef(rows[:-1], rows[1:])[0, 1]
    assert abs(correlation) < 0.05  # 3 standard errors of 4096 independent pairs
