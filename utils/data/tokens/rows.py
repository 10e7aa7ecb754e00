"""Packed training rows whose order is a pure function of (seed, row number): nothing to resume.

Each folder's documents are packed into rows (`utils.data.tokens.packing`); labels are made from the
same row in `utils.training.step.loss`. Training asks for global rows 0, 1, 2, ...: an epoch visits
each row once, in an order drawn by a keyed permutation that needs no table, so a run can start at
row 10^12 at once, and batch size, accumulation and processes can change without changing which rows
make up a step. Several folders are mixed by weight, each without replacement within its own epochs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from utils.data.tokens.packing import BestFit, EndToEnd, Runs
from utils.data.tokens.permutation import shuffled_rows
from utils.data.tokens.shards import TokenShards, read_dataset
from utils.data.tokens.token_stream import TokenStream
from utils.errors import DataError
from utils.tokenizers.control_tokens import ControlIds

MIX_BLOCK = 1000
"""Rows after which the shares of several data sets are met exactly."""
ORDER_BLOCK = 4096
"""Rows whose order is worked out at once."""


@dataclass(frozen=True)
class Drawn:
    """Counts of what a run has drawn from one folder."""

    rows: int
    tokens: int
    """Padding not counted."""
    passes: float
    """Rows drawn over rows there are."""


@dataclass(frozen=True)
class PackedDataset:
    """Rows of `length` tokens from one or several prepared folders in a seeded order."""

    sources: tuple[EndToEnd | BestFit, ...]
    """The rows of each folder."""
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
        packing: str = "end_to_end",
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
        sources = tuple(_source(place, split, length, packing) for place in places)
        return cls(sources, length, _shares(weights or [1.0] * len(places)))

    @property
    def streams(self) -> tuple[TokenStream, ...]:
        """The tokens of each folder."""
        return tuple(source.stream for source in self.sources)

    @property
    def num_rows(self) -> int:
        """Rows of all folders."""
        return sum(source.num_rows for source in self.sources)

    @property
    def most_documents(self) -> int:
        """Most documents that a row of any folder holds a part of."""
        return max(source.most_documents for source in self.sources)

    def batch(self, seed: int, first: int, size: int) -> Tensor:
        """Return global rows [first, first + size) as int64 (size, length)."""
        out = np.empty((size, self.length), dtype=np.int64)
        for mine, number, rows in self._by_source(seed, first, size):
            out[mine] = self.sources[number].rows(rows)
        return torch.from_numpy(out)

    def runs(self, seed: int, first: int, size: int) -> Runs:
        """Return where the tokens of global rows lie in the streams of all folders end to end.

        The runs come in the order of their places.
        """
        parts, before = [], np.cumsum([0, *map(len, self.streams)])
        for mine, number, rows in self._by_source(seed, first, size):
            runs = self.sources[number].runs(rows)
            row, column = np.divmod(runs.places, self.length)
            places = np.flatnonzero(mine)[row] * self.length + column
            parts.append(Runs(runs.starts + before[number], places, runs.lengths))
        names = ("starts", "places", "lengths")
        table = np.array(
            [np.concatenate([getattr(part, name) for part in parts]) for name in names]
        )
        return Runs(*table[:, np.argsort(table[1])])

    def count_tokens(self, seed: int, first: int, size: int) -> int:
        """Return the tokens in global rows [first, first + size), padding not counted."""
        parts = self._by_source(seed, first, size)
        return sum(int(self.sources[number].tokens(rows).sum()) for _, number, rows in parts)

    def drawn_rows(self, seed: int, size: int) -> list[int]:
        """Return how many of the global rows [0, size) are of each folder."""
        blocks, rest = divmod(size, MIX_BLOCK)
        ends = np.bincount(_pattern(self.counts, seed)[:rest], minlength=len(self.counts))
        return [int(blocks * count + end) for count, end in zip(self.counts, ends, strict=True)]

    def drawn(self, seed: int, size: int) -> tuple[Drawn, ...]:
        """Return what the global rows [0, size) hold of each folder."""
        out = []
        for number, rows in enumerate(self.drawn_rows(seed, size)):
            source = self.sources[number]
            tokens = _drawn_tokens(source, seed + number, rows)
            out.append(Drawn(rows, tokens, rows / source.num_rows))
        return tuple(out)

    def _by_source(
        self, seed: int, first: int, size: int
    ) -> list[tuple[np.ndarray, int, np.ndarray]]:
        """Return (which of the global rows, folder, their rows there) for each folder in use."""
        blocks = range(first // ORDER_BLOCK, (first + size - 1) // ORDER_BLOCK + 1)
        order = np.concatenate([_order(self, seed, block) for block in blocks], axis=1)
        begin = first - blocks[0] * ORDER_BLOCK
        source, rows = order[:, begin : begin + size]
        found = ((source == number, number) for number in range(len(self.sources)))
        return [(mine, number, rows[mine]) for mine, number in found if mine.any()]

    def order(self, seed: int, rows: np.ndarray) -> np.ndarray:
        """Return the folder of each global row (uint64) and its row there; int64 (2, R)."""
        source, rank = self._sources(seed, rows)
        row = np.empty(len(rows), dtype=np.int64)
        for number, part in enumerate(self.sources):
            mine = source == number
            row[mine] = shuffled_rows(seed + number, rank[mine], part.num_rows)
        return np.stack([source, row])

    def _sources(self, seed: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return for each global row its folder and its running number within that folder."""
        if len(self.sources) == 1:
            return np.zeros(len(rows), dtype=np.int64), rows
        pattern = _pattern(self.counts, seed)
        one_hot = pattern[:, None] == np.arange(len(self.counts))[None, :]
        rank = (np.cumsum(one_hot, axis=0) - 1)[np.arange(MIX_BLOCK), pattern]
        block, slot = rows // MIX_BLOCK, (rows % MIX_BLOCK).astype(np.int64)
        count = np.asarray(self.counts, dtype=np.uint64)[pattern[slot]]
        return pattern[slot], block * count + rank[slot].astype(np.uint64)


def _source(folder: Path, split: str, length: int, packing: str) -> EndToEnd | BestFit:
    shards = TokenShards.open(folder, split)
    stream, offsets = shards.tokens, shards.document_offsets
    least = length if packing == "end_to_end" else 1
    if len(stream) < least:
        raise DataError(
            f"{folder}: {split} has {len(stream)} tokens, a row needs {least}: lower "
            "--max_length or prepare more text"
        )
    if packing == "end_to_end":
        return EndToEnd(stream, offsets, length)
    return BestFit(stream, offsets, length, ControlIds.of(read_dataset(folder)))


def _pattern(counts: tuple[int, ...], seed: int) -> np.ndarray:
    """Return the folder of each row of a block."""
    pattern = np.repeat(np.arange(len(counts)), counts)
    np.random.default_rng(seed).shuffle(pattern)
    return pattern


@lru_cache(maxsize=2)
def _order(data: PackedDataset, seed: int, block: int) -> np.ndarray:
    """Return the order of many rows: for a few, numpy's calls would cost more than reading."""
    rows = np.arange(ORDER_BLOCK, dtype=np.uint64) + np.uint64(block * ORDER_BLOCK)
    return data.order(seed, rows)


def _drawn_tokens(source: EndToEnd | BestFit, seed: int, rows: int) -> int:
    """Return the tokens in the first `rows` rows that are drawn from a folder."""
    passes, last = divmod(rows, source.num_rows)
    tokens, first = passes * source.num_tokens, passes * source.num_rows
    if source.control is None:  # all rows are full
        return tokens + last * source.num_tokens // source.num_rows
    for start in range(first, rows, ORDER_BLOCK):
        tokens += _count_tokens(source, seed, start, min(ORDER_BLOCK, rows - start))
    return tokens


@lru_cache(maxsize=1 << 16)
def _count_tokens(source: EndToEnd | BestFit, seed: int, first: int, size: int) -> int:
    """Return the tokens in the rows of a folder with the running numbers [first, first + size)."""
    numbers = np.arange(first, first + size, dtype=np.uint64)
    rows = shuffled_rows(seed, numbers, source.num_rows)
    return int(source.tokens(rows.astype(np.int64)).sum())


def _shares(weights: Sequence[float]) -> tuple[int, ...]:
    """Divide `MIX_BLOCK` rows by weight (largest remainder), at least one row each."""
    exact = np.asarray(weights, dtype=float) / sum(weights) * MIX_BLOCK
    counts = np.maximum(1, np.floor(exact)).astype(int)
    for index in np.argsort(counts - exact, kind="stable")[: max(0, MIX_BLOCK - counts.sum())]:
        counts[index] += 1
    counts[np.argmax(counts)] += MIX_BLOCK - counts.sum()
    return tuple(int(count) for count in counts)
