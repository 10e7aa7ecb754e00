"""Packed rows: every row once an epoch, in an order that needs no state."""

import numpy as np
import pytest
import torch

from utils.data.packed import MIX_BLOCK, PackedDataset, permute, shuffled_rows
from utils.data.shards import TokenShards
from utils.errors import DataError


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


def test_rows_are_consecutive_tokens_without_gaps(prepared_dir):
    data = PackedDataset.open(prepared_dir, "train", 32)
    tokens = np.asarray(TokenShards.open(prepared_dir, "train").tokens[:])
    wanted = {tuple(tokens[i * 32 : i * 32 + 32].tolist()) for i in range(len(tokens) // 32)}
    epoch = data.batch(7, 0, data.num_rows)
    assert epoch.shape == (len(tokens) // 32, 32) and epoch.dtype == torch.int64
    assert {tuple(row) for row in epoch.tolist()} == wanted


def test_batch_size_does_not_change_which_rows_come(prepared_dir):
    data = PackedDataset.open(prepared_dir, "train", 32)
    whole = data.batch(7, 40, 12)
    parts = torch.cat([data.batch(7, 40 + start, 3) for start in (0, 3, 6, 9)])
    assert torch.equal(whole, parts)


def test_several_folders_are_mixed_by_weight_and_each_without_repeats(prepared_dir):
    data = PackedDataset.open([prepared_dir, prepared_dir], "train", 32, [3, 1])
    source, rank = data._sources(7, np.arange(2 * MIX_BLOCK, dtype=np.uint64))
    assert data.counts == (750, 250)
    assert [int((source[:MIX_BLOCK] == number).sum()) for number in (0, 1)] == [750, 250]
    assert sorted(rank[source == 1].tolist()) == list(range(500))


def test_a_row_longer_than_the_split_is_refused(prepared_dir):
    with pytest.raises(DataError, match=r"lower --max_length"):
        PackedDataset.open(prepared_dir, "train", 10_000_000)
