"""The same ids whatever the way to the device."""

import numpy as np
import pytest
import torch

from utils.data.control_tokens import ControlIds
from utils.data.packed import PackedDataset
from utils.data.packing import BestFit, EndToEnd
from utils.data.token_stream import DocumentOffsets, TokenStream
from utils.training import feeding
from utils.training.feeding import AheadFeed, HostFeed, ResidentFeed, open_feed

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


def test_the_next_batches_are_read_ahead(prepared_dir):
    data = PackedDataset.open(prepared_dir, "train", 32)
    feed = AheadFeed(data, CPU)
    for place in (1, 2, 5):
        assert torch.equal(feed.batch(7, place * 4, 4), data.batch(7, place * 4, 4))
    assert sorted(feed._coming) == [(7, 24, 4), (7, 28, 4)]


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
