"""The same ids whatever the way to the device."""

import numpy as np
import pytest
import torch

from utils.data.tokens.packing import BestFit, EndToEnd
from utils.data.tokens.rows import PackedDataset
from utils.data.tokens.token_stream import DocumentOffsets, TokenStream
from utils.tokenizers.control_tokens import ControlIds
from utils.training.step import feeding
from utils.training.step.feeding import AheadFeed, HostFeed, ResidentFeed, open_feed, own_batches

CPU = torch.device("cpu")


@pytest.mark.parametrize("packing", ["end_to_end", "best_fit"])
@pytest.mark.parametrize("kind", [HostFeed, AheadFeed, ResidentFeed])
def test_every_way_gives_the_rows_of_the_data_set(prepared_dir, monkeypatch, kind, packing):
    monkeypatch.setattr(feeding, "UPLOAD_TOKENS", 1000)
    data = PackedDataset.open([prepared_dir, prepared_dir], "train", 64, [3, 1], packing)
    feed = kind(data, CPU)
    for first, size in [(0, 4), (4, 4), (8, 4), (4095, 3), (1, 5), (6, 5), (10**9, 2)]:
        rows = feed.batch(7, first, size)
        assert rows.dtype == torch.int64
        assert torch.equal(rows, data.batch(7, first, size))


@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
def test_ids_beyond_the_signed_types_are_kept(dtype):
    tokens = np.array([65535, 40000, 2, 7, 8, 9, 70000, 2], np.uint32).astype(dtype)
    stream, offsets = TokenStream([tokens]), DocumentOffsets([np.array([0, 3, 8], "<u8")])
    sources = EndToEnd(stream, offsets, 4), BestFit(stream, offsets, 6, ControlIds())
    for source, length in zip(sources, (4, 6), strict=True):
        data = PackedDataset((source,), length, (1000,))
        rows = ResidentFeed(data, CPU).batch(1, 0, data.num_rows)
        assert torch.equal(rows, data.batch(1, 0, data.num_rows))
        assert {65535, 40000} <= set(rows.flatten().tolist())


def test_the_next_batch_is_read_ahead(prepared_dir):
    data = PackedDataset.open(prepared_dir, "train", 32)
    feed, read = AheadFeed(data, CPU), []
    monitored = feed._read
    feed._read = lambda *key: read.append(key[1]) or monitored(*key)
    for place in (1, 2, 5):
        assert torch.equal(feed.batch(7, place * 4, 4), data.batch(7, place * 4, 4))
    assert sorted(feed._coming) == [(7, 24, 4)]
    for step in range(2):  # the second of three processes: what comes next is told
        for _, start, following in own_batches(24 * step, 24, 4, 1, 3):
            rows = feed.batch(7, start, 4, following)
            assert torch.equal(rows, data.batch(7, start, 4))
    feed._thread.shutdown()
    assert read == [4, 8, 12, 20, 24, 8, 12, 32, 36, 56]  # once each, but for what was no guess


def test_the_processes_share_a_step():
    batches = [batch for rank in range(3) for batch in own_batches(24, 24, 4, rank, 3)]
    assert batches == [
        (0, 24, 28), (1, 28, 48), (2, 32, 36), (3, 36, 56), (4, 40, 44), (5, 44, 64),
    ]  # fmt: skip


def test_a_failure_of_the_thread_reaches_the_step(prepared_dir):
    data = PackedDataset.open(prepared_dir, "train", 32)
    feed = AheadFeed(data, CPU)
    with pytest.raises(ValueError):
        feed.batch(7, 0, -1)


def test_a_cpu_reads_when_asked(prepared_dir):
    data = PackedDataset.open(prepared_dir, "train", 32)
    assert isinstance(open_feed(data, CPU), HostFeed)


@pytest.mark.gpu
@pytest.mark.parametrize("packing", ["end_to_end", "best_fit"])
@pytest.mark.parametrize("kind", [AheadFeed, ResidentFeed])
def test_a_gpu_gets_the_same_rows(prepared_dir, kind, packing):
    data = PackedDataset.open([prepared_dir, prepared_dir], "train", 64, [3, 1], packing)
    feed = kind(data, torch.device("cuda"))
    for first in (0, 4, 8, 4094):
        rows = feed.batch(7, first, 4)
        assert rows.is_cuda and torch.equal(rows.cpu(), data.batch(7, first, 4))
