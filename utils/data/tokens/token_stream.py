"""Several shards read as one: ids by their place, documents by their number; nothing is loaded."""

from collections.abc import Sequence
from typing import Any, overload

import numpy as np

from utils.data.tokens.lz4_tokens import Lz4Tokens

Shard = np.ndarray | Lz4Tokens
"""Ids of one shard: an array, which may be mapped from the disk, or an LZ4 file."""


class TokenStream:
    """Ids of several shards as one sequence: `tokens[10:20]` is an array."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = shards
        self.starts = np.cumsum([0, *map(len, shards)])
        """First token of each shard and the end."""
        self.dtype = shards[0].dtype if shards else np.dtype("<u2")

    def __len__(self) -> int:
        return int(self.starts[-1])

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> np.ndarray: ...
    def __getitem__(self, place: int | slice) -> int | np.ndarray:
        if not isinstance(place, slice):
            place = range(len(self))[place]
            return int(self[place : place + 1][0])
        start, stop, step = place.indices(len(self))
        if step != 1:
            raise ValueError(f"tokens[{start}:{stop}:{step}]: only steps of 1")
        first = int(np.searchsorted(self.starts, start, "right")) - 1
        parts = []
        while start < stop:
            offset = start - int(self.starts[first])
            part = self.shards[first][offset : offset + stop - start]
            parts.append(part)
            start += len(part)
            first += 1
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty(0, self.dtype)

    def rows(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Return the rows of `length` ids that begin at `starts` (R,), as a new array (R, length).

        Raises:
            DataError: a block of an LZ4 shard is damaged.
        """
        shard_of = np.searchsorted(self.starts, starts, "right") - 1
        out = np.empty((len(starts), length), self.dtype)
        inside = starts + length <= self.starts[shard_of + 1]
        for number in np.unique(shard_of[inside]).tolist():
            mine = np.flatnonzero(inside & (shard_of == number))
            offsets = starts[mine] - self.starts[number]
            out[mine] = _windows(self.shards[number], offsets, length)
        for row in np.flatnonzero(~inside).tolist():
            start = int(starts[row])
            out[row] = self[start : start + length]
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)


def _windows(shard: Shard, offsets: np.ndarray, length: int) -> np.ndarray:
    """Return rows of one shard; an array is seen as all its windows, and the rows taken at once."""
    if isinstance(shard, Lz4Tokens):
        return np.stack([shard[start : start + length] for start in offsets.tolist()])
    shape, strides = (len(shard) - length + 1, length), (shard.itemsize, shard.itemsize)
    return np.ndarray(shape, shard.dtype, shard, strides=strides)[offsets]


class DocumentOffsets:
    """Start of each document in the tokens of a split, and the end, read when asked for.

    `offsets[n]` is an int, `offsets[2:5]` an int64 array; there is one more than documents.
    """

    def __init__(self, shards: Sequence[np.ndarray]) -> None:
        """Take the offsets within each shard: its document starts and its end."""
        self._shards = shards
        self._documents = np.cumsum([0, *(len(shard) - 1 for shard in shards)])
        self._tokens = np.cumsum([0, *(int(shard[-1]) for shard in shards)])

    def __len__(self) -> int:
        return int(self._documents[-1]) + 1

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> np.ndarray: ...
    def __getitem__(self, place: int | slice) -> int | np.ndarray:
        if isinstance(place, slice):
            start, stop, step = place.indices(len(self))
            if step != 1:
                raise ValueError(f"offsets[{start}:{stop}:{step}]: only steps of 1")
            return self._range(start, stop)
        place = range(len(self))[place]
        if place == len(self) - 1:
            return int(self._tokens[-1])
        number = int(np.searchsorted(self._documents, place, "right")) - 1
        return int(self._tokens[number]) + int(
            self._shards[number][place - self._documents[number]]
        )

    def _range(self, start: int, stop: int) -> np.ndarray:
        parts = []
        for number, shard in enumerate(self._shards):
            before = int(self._documents[number])
            own = shard[:-1][max(0, start - before) : max(0, stop - before)]
            parts.append(own.astype(np.int64) + self._tokens[number])
        end = self._tokens[-1:] if stop == len(self) > start else self._tokens[:0]
        return np.concatenate([*parts, end])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)

    def within(self, tokens: int) -> int:
        """Return how many of the first documents end within the first `tokens` tokens."""
        if tokens >= self._tokens[-1]:
            return len(self) - 1
        number = int(np.searchsorted(self._tokens, tokens, "right")) - 1
        wanted = np.uint64(tokens - self._tokens[number])  # another type would convert the shard
        own = np.searchsorted(self._shards[number], wanted, "right")
        return int(self._documents[number] + own) - 1
