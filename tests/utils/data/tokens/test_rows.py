"""Packed rows: every row once an epoch, in an order that needs no state."""

import time

import numpy as np
import pytest
import torch

from utils.data.tokens.rows import MIX_BLOCK, PackedDataset
from utils.data.tokens.shards import TokenShards
from utils.errors import DataError

PACKINGS = ("end_to_end", "best_fit")
PAD = 3


def opened(folder, packing="end_to_end", weights=(3, 1), length=64):
    """Two folders of different size with one tokenizer."""
    return PackedDataset.open([folder, folder], "train", length, weights, packing)


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


@pytest.mark.parametrize("packing", PACKINGS)
def test_whatever_the_packing_batch_size_does_not_change_which_rows_come(prepared_dir, packing):
    data = opened(prepared_dir, packing)
    whole = data.batch(7, 4090, 12)  # over the border of a block of the order
    parts = torch.cat([data.batch(7, 4090 + start, 3) for start in (0, 3, 6, 9)])
    assert torch.equal(whole, parts)
    assert data.count_tokens(7, 4090, 12) == int((whole != PAD).sum())


@pytest.mark.parametrize("packing", PACKINGS)
def test_an_epoch_of_one_folder_holds_each_row_once(prepared_dir, packing):
    data = PackedDataset.open(prepared_dir, "train", 64, packing=packing)
    (source,) = data.sources
    wanted = sorted(map(tuple, source.rows(np.arange(source.num_rows)).tolist()))
    for epoch in (0, 3):
        batch = data.batch(7, epoch * data.num_rows, data.num_rows)
        assert sorted(map(tuple, batch.tolist())) == wanted


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("size", [0, 1, 999, 5000])
def test_what_was_drawn_from_each_folder_is_what_a_count_finds(prepared_dir, packing, size):
    data = opened(prepared_dir, packing)
    drawn = data.drawn(7, size)
    source, row = data.order(7, np.arange(size, dtype=np.uint64))
    for number, found in enumerate(drawn):
        mine = row[source == number]
        rows = data.sources[number].rows(mine)
        assert (found.rows, found.tokens) == (len(mine), int((rows != PAD).sum()))
        assert found.passes == len(mine) / data.sources[number].num_rows
        # without replacement: after whole passes and a part, no row is a visit ahead by two
        visits = np.bincount(mine, minlength=data.sources[number].num_rows)
        assert visits.max() - visits.min() <= 1
    assert sum(part.tokens for part in drawn) == (data.count_tokens(7, 0, size) if size else 0)


@pytest.mark.parametrize("packing", PACKINGS)
def test_step_one_million_is_there_in_under_a_second(prepared_dir, packing):
    data = opened(prepared_dir, packing)
    first = 1_000_000 * 64
    started = time.process_time()
    batch = data.batch(7, first, 64)
    tokens = data.count_tokens(7, first, 64)
    drawn = data.drawn(7, first)
    assert time.process_time() - started < 1
    assert tokens == int((batch != PAD).sum())
    assert [part.rows for part in drawn] == [48_000_000, 16_000_000]


@pytest.mark.parametrize("packing", PACKINGS)
def test_runs_are_where_the_rows_lie(prepared_dir, packing):
    data = opened(prepared_dir, packing)
    tokens = np.concatenate([stream[:] for stream in data.streams])
    runs, batch = data.runs(7, 300, 9), data.batch(7, 300, 9).flatten()
    for start, place, length in zip(runs.starts, runs.places, runs.lengths, strict=True):
        assert batch[place : place + length].tolist() == tokens[start : start + length].tolist()
    assert runs.lengths.sum() == data.count_tokens(7, 300, 9) - (9 if packing == "best_fit" else 0)
