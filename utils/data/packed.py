"""Packed training rows whose order is a pure function of (seed, row number): nothing to resume.

The token shards of a split are one long stream. Row i is its tokens [i * T, (i + 1) * T), documents
end to end with EOS between them; labels are made from the same row in `utils.training.loss`.
Training asks for global rows 0, 1, 2, ...: an epoch visits each row once, in an order drawn by a
keyed permutation that needs no table, so a run can start at row 10^12 at once, and batch size,
accumulation and processes can change without changing which rows make up a step.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from utils.data.shards import TokenShards
from utils.data.token_stream import TokenStream
from utils.errors import DataError

MIX_BLOCK = 1000
"""Rows after which the shares of several data sets are met exactly."""
FEISTEL_ROUNDS = 4
ORDER_BLOCK = 4096
"""Rows whose order is worked out at once."""


@dataclass(frozen=True)
class PackedDataset:
    """Rows of `length` tokens from one or several prepared folders in a seeded order."""

    streams: tuple[TokenStream, ...]
    length: int
    """Tokens per row (T)."""
    counts: tuple[int, ...]
    """Rows of each folder in every block of `MIX_BLOCK` rows."""

    @classmethod
    def open(
        cls,
        folders: Path | Sequence[Path],
        split: str,
        length: int,
        weights: Sequence[float] = (),
    ) -> Self:
        """Open prepared folders that share one tokenizer; equal weights when none are given.

        Raises:
            DataError: a folder is not prepared, or there is not one whole row in it.
        """
        places = [folders] if isinstance(folders, Path) else list(folders)
        if weights and len(weights) != len(places):
            raise DataError(
                f"{len(weights)} data_weights for {len(places)} data_dirs: give one for each"
            )
        streams = tuple(TokenShards.open(place, split).tokens for place in places)
        for place, stream in zip(places, streams, strict=True):
            if len(stream) < length:
                raise DataError(
                    f"{place}: {split} has {len(stream)} tokens, a row needs {length}: lower "
                    "--max_length or prepare more text"
                )
        return cls(streams, length, _shares(weights or [1.0] * len(places)))

    @property
    def rows_per_stream(self) -> tuple[int, ...]:
        """Whole rows in each folder; the last, shorter piece of a stream is left out."""
        return tuple(len(stream) // self.length for stream in self.streams)

    @property
    def num_rows(self) -> int:
        """Rows of all folders."""
        return sum(self.rows_per_stream)

    def batch(self, seed: int, first: int, size: int) -> Tensor:
        """Return global rows [first, first + size) as int64 (size, length)."""
        blocks = range(first // ORDER_BLOCK, (first + size - 1) // ORDER_BLOCK + 1)
        order = np.concatenate([_order(self, seed, block) for block in blocks], axis=1)
        begin = first - blocks[0] * ORDER_BLOCK
        source, start = order[:, begin : begin + size]
        out = np.empty((size, self.length), dtype=np.int64)
        for number, stream in enumerate(self.streams):
            mine = source == number
            out[mine] = stream.rows(start[mine], self.length)
        return torch.from_numpy(out)

    def order(self, seed: int, rows: np.ndarray) -> np.ndarray:
        """Return the folder of each global row (uint64) and its first token there; int64 (2, R)."""
        source, rank = self._sources(seed, rows)
        start = np.empty(len(rows), dtype=np.int64)
        for number, count in enumerate(self.rows_per_stream):
            mine = source == number
            start[mine] = shuffled_rows(seed + number, rank[mine], count) * np.uint64(self.length)
        return np.stack([source, start])

    def _sources(self, seed: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return for each global row its folder and its running number within that folder."""
        if len(self.streams) == 1:
            return np.zeros(len(rows), dtype=np.int64), rows
        pattern = np.repeat(np.arange(len(self.counts)), self.counts)
        np.random.default_rng(seed).shuffle(pattern)
        one_hot = pattern[:, None] == np.arange(len(self.counts))[None, :]
        rank = (np.cumsum(one_hot, axis=0) - 1)[np.arange(MIX_BLOCK), pattern]
        block, slot = rows // MIX_BLOCK, (rows % MIX_BLOCK).astype(np.int64)
        count = np.asarray(self.counts, dtype=np.uint64)[pattern[slot]]
        return pattern[slot], block * count + rank[slot].astype(np.uint64)


@lru_cache(maxsize=2)
def _order(data: PackedDataset, seed: int, block: int) -> np.ndarray:
    """Return the order of many rows: for a few, numpy's calls would cost more than reading."""
    rows = np.arange(ORDER_BLOCK, dtype=np.uint64) + np.uint64(block * ORDER_BLOCK)
    return data.order(seed, rows)


def _shares(weights: Sequence[float]) -> tuple[int, ...]:
    """Divide `MIX_BLOCK` rows by weight (largest remainder), at least one row each."""
    exact = np.asarray(weights, dtype=float) / sum(weights) * MIX_BLOCK
    counts = np.maximum(1, np.floor(exact)).astype(int)
    for index in np.argsort(counts - exact, kind="stable")[: max(0, MIX_BLOCK - counts.sum())]:
        counts[index] += 1
    counts[np.argmax(counts)] += MIX_BLOCK - counts.sum()
    return tuple(int(count) for count in counts)


def shuffled_rows(seed: int, numbers: np.ndarray, num_rows: int) -> np.ndarray:
    """Return the row that the n-th read visits, for running numbers n of any size (uint64).

    Each block of `num_rows` numbers (an epoch) visits every row once, each in another order.
    """
    epochs, positions = np.divmod(numbers, np.uint64(num_rows))
    rows = np.empty_like(positions)
    for epoch in np.unique(epochs):
        mine = epochs == epoch
        rows[mine] = permute(positions[mine], num_rows, f"{seed}/{int(epoch)}")
    return rows


def permute(positions: np.ndarray, size: int, key: str) -> np.ndarray:
    """Return a bijection of [0, size) drawn by `key`, applied to each of `positions`.

    Reference: Feistel network with cycle walking (Black and Rogaway, 2002): a permutation of the
    next power of four, repeated for values that fall outside.
    """
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    digest = hashlib.sha256(key.encode()).digest()
    keys = np.frombuffer(digest, dtype="<u8")[:FEISTEL_ROUNDS]
    out = positions.astype(np.uint64)
    todo = np.ones(len(out), dtype=bool)
    while todo.any():
        left, right = out[todo] >> half, out[todo] & mask
        for round_key in keys:
            left, right = right, left ^ (_mix(right ^ round_key) & mask)
        out[todo] = (left << half) | right
        todo &= out >= size
    return out


def _mix(values: np.ndarray) -> np.ndarray:
    """Scramble 64-bit words (the finaliser of SplitMix64, Steele et al., 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
