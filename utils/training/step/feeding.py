"""Brings training rows to the device: kept there when they fit, else read one batch ahead.

The ids are the same whatever the way, so the way is no part of a run's identity.
Legend: R rows, T tokens of a row, S runs of tokens.
"""

import logging
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from utils.data.tokens.rows import PackedDataset

RESIDENT_SHARE = 0.2
"""Share of the free memory of a GPU that the tokens may take."""
UPLOAD_TOKENS = 1 << 24
"""Tokens that are read and brought to the device at once."""

log = logging.getLogger(__name__)


class Feed(Protocol):
    """Hands out rows on the device."""

    def batch(self, seed: int, first: int, size: int, following: int | None = None) -> Tensor:
        """Return global rows [first, first + size) as int64 (size, T) on the device.

        `following` is the first row of the batch after this one, by default that behind its last.
        """
        ...


def open_feed(data: PackedDataset, device: torch.device, *, resident: bool = True) -> Feed:
    """Return the fastest way for `device` and log it.

    `resident` allows the tokens to be kept on a GPU.
    """
    if device.type != "cuda":
        return HostFeed(data, device)
    free, size = torch.cuda.mem_get_info(device)[0], _bytes(data)
    if resident and size <= RESIDENT_SHARE * free:
        log.info("training tokens: on the GPU (%.0f MB)", size / 1e6)
        return ResidentFeed(data, device)
    log.info("training tokens: read ahead by a thread (%.0f MB)", size / 1e6)
    return AheadFeed(data, device)


def own_batches(
    first: int, rows: int, size: int, rank: int, count: int
) -> Iterator[tuple[int, int, int]]:
    """Yield what process `rank` of `count` does of a step that begins at row `first`.

    Each is (number in the step, first row, first row of the next one, in the next step at last).
    """
    each = rows // (size * count)
    places = range(rank * each, (rank + 1) * each)
    starts = [first + place * size for place in places]
    yield from zip(places, starts, [*starts[1:], starts[0] + rows], strict=True)


def _bytes(data: PackedDataset) -> int:
    return sum(len(stream) * stream.dtype.itemsize for stream in data.streams)


class HostFeed:
    """Reads when asked: on a CPU a batch takes a thousandth of a step (the files are mapped)."""

    def __init__(self, data: PackedDataset, device: torch.device) -> None:
        self._data = data
        self._device = device

    def batch(self, seed: int, first: int, size: int, following: int | None = None) -> Tensor:
        """Return rows; see `Feed`."""
        return self._data.batch(seed, first, size).to(self._device)


class AheadFeed:
    """A thread reads the next batch into pinned memory, from where it is copied unwaited."""

    def __init__(self, data: PackedDataset, device: torch.device) -> None:
        self._data = data
        self._device = device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._coming: dict[tuple[int, int, int], Future[Tensor]] = {}

    def batch(self, seed: int, first: int, size: int, following: int | None = None) -> Tensor:
        """Return rows; see `Feed`. What is not what was read ahead is read at once."""
        following = first + size if following is None else following
        wanted = [(seed, start, size) for start in (first, following)]
        self._coming = {
            key: self._coming.get(key) or self._thread.submit(self._read, *key) for key in wanted
        }
        return self._coming.pop(wanted[0]).result().to(self._device, non_blocking=True)

    def _read(self, seed: int, first: int, size: int) -> Tensor:
        rows = self._data.batch(seed, first, size)
        return rows.pin_memory() if self._device.type == "cuda" else rows


class ResidentFeed:
    """All tokens lie on the device as they are stored; rows are gathered there."""

    def __init__(self, data: PackedDataset, device: torch.device) -> None:
        self._data = data
        self._device = device
        self._bits = 8 * data.streams[0].dtype.itemsize
        # Signed types of the same size: torch can gather them everywhere.
        kind = torch.int16 if self._bits == 16 else torch.int32
        self._tokens = torch.empty(sum(map(len, data.streams)), dtype=kind, device=device)
        place = 0
        for stream in data.streams:
            for start in range(0, len(stream), UPLOAD_TOKENS):
                part = np.array(stream[start : start + UPLOAD_TOKENS])
                signed = torch.from_numpy(part.view(f"<i{part.itemsize}"))
                self._tokens[place : place + len(part)].copy_(signed)
                place += len(part)

    def batch(self, seed: int, first: int, size: int, following: int | None = None) -> Tensor:
        """Return rows; see `Feed`. Only where they lie is sent."""
        runs, control = self._data.runs(seed, first, size), self._data.sources[0].control
        table = torch.from_numpy(np.stack([runs.starts, runs.places, runs.lengths]))  # (3, S)
        if self._device.type == "cuda":
            table = table.pin_memory()
        starts, places, lengths = table.to(self._device, non_blocking=True)
        count = int(runs.lengths.sum())
        before = torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths, output_size=count)
        inside = torch.arange(count, device=self._device) - before  # place within the run
        source = torch.repeat_interleave(starts, lengths, output_size=count) + inside
        ids = self._tokens[source].to(torch.int64) & ((1 << self._bits) - 1)
        if control is None:
            return ids.view(size, self._data.length)
        target = torch.repeat_interleave(places, lengths, output_size=count) + inside
        rows = torch.full((size, self._data.length), control.pad, device=self._device)
        rows[:, 0] = control.eos
        return rows.view(-1).scatter(0, target, ids).view(size, -1)
