"""Makes rows of the documents of a split: end to end, or whole by best fit.

Legend: T tokens of a row, R rows asked for, N documents, S runs.
Which rows there are depends on the documents and T alone; in which order they come is the
business of `utils.data.tokens.rows`. Knows no labels: padding is told by its id.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from utils.data.tokens.token_stream import DocumentOffsets, TokenStream
from utils.tokenizers.control_tokens import ControlIds


@dataclass(frozen=True)
class Runs:
    """R rows as runs of consecutive tokens of the stream, int64 (S,) each.

    What no run covers is padding, but for the first token of each row where rows begin with EOS.
    """

    starts: np.ndarray
    """First token in the stream."""
    places: np.ndarray
    """Its place in the R * T tokens of the rows."""
    lengths: np.ndarray


class EndToEnd:
    """Row i is the tokens [i * T, (i + 1) * T) of the stream, documents cut where a row ends."""

    control: ControlIds | None = None
    """Rows are full: nothing begins or fills them up."""

    def __init__(self, stream: TokenStream, offsets: DocumentOffsets, length: int) -> None:
        self.stream = stream
        self.num_rows = len(stream) // length
        self.num_tokens = self.num_rows * length
        """Tokens of all rows, padding not counted."""
        self._left_out = len(stream) - self.num_tokens
        self._offsets = offsets
        self._length = length

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """Return rows as stored ids (R, T)."""
        return self.stream.rows(numbers * self._length, self._length)

    def runs(self, numbers: np.ndarray) -> Runs:
        """Return where the tokens of rows lie."""
        lengths = np.full(len(numbers), self._length)
        return Runs(numbers * self._length, np.arange(len(numbers)) * self._length, lengths)

    def tokens(self, numbers: np.ndarray) -> np.ndarray:
        """Return the tokens in each row, padding not counted; int64 (R,)."""
        return np.full(len(numbers), self._length)

    @cached_property
    def most_documents(self) -> int:
        """Most documents that any row holds a part of."""
        ends = (np.asarray(self._offsets)[1:] - 1) // self._length
        return 1 + int(np.bincount(ends).max(initial=0))

    def accounts(self) -> dict[str, int]:
        """Return what became of the split: rows, tokens in them, tokens left out."""
        return {"rows": self.num_rows, "tokens": self.num_tokens, "left_out": self._left_out}


class BestFit:
    """Rows of EOS and whole documents; a document longer than a row is cut into full rows first.

    A row takes the longest document that fits into what is free, again and again, over all
    documents of the split; what stays free is padding, so that no token is lost. This is first-fit
    decreasing bin packing, done once for all rows that get the same lengths: the work is bounded
    by T, not by N, but for one sort by length.

    Reference: Ding et al. (2024), "Fewer Truncations Improve Language Modeling".
    """

    def __init__(
        self, stream: TokenStream, offsets: DocumentOffsets, length: int, control: ControlIds
    ) -> None:
        self.stream = stream
        self._length = length
        self.control: ControlIds | None = control
        """EOS begins each row, padding fills it up."""
        starts, lengths = _parts(np.asarray(offsets), length - 1)
        self._cuts = len(lengths) - (len(offsets) - 1)
        self._starts = starts[np.argsort(lengths, kind="stable")]
        counts = np.bincount(lengths, minlength=length)
        self._layout = _Layout.of(counts, length - 1)
        self.num_rows = int(self._layout.first_row[-1])
        self.num_tokens = self.num_rows + len(stream)
        """Tokens of all rows: those of the split and the EOS in front of each row."""

    @property
    def most_documents(self) -> int:
        """Most documents in a row, the one that its last EOS begins and no more included."""
        return 1 + int(np.diff(self._layout.first_slot).max(initial=0))

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """Return rows as stored ids (R, T)."""
        assert self.control is not None
        out = np.full(len(numbers) * self._length, self.control.pad, self.stream.dtype)
        out[:: self._length] = self.control.eos
        runs = self.runs(numbers)
        parts = zip(runs.starts.tolist(), runs.places.tolist(), runs.lengths.tolist(), strict=True)
        for start, place, length in parts:
            out[place : place + length] = self.stream[start : start + length]
        return out.reshape(len(numbers), self._length)

    def runs(self, numbers: np.ndarray) -> Runs:
        """Return where the tokens of rows lie."""
        layout = self._layout
        kind = layout.kind_of(numbers)
        sizes = np.diff(layout.first_slot)[kind]
        row = np.repeat(np.arange(len(numbers)), sizes)
        behind = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        slot = layout.first_slot[kind][row] + behind
        use = (numbers - layout.first_row[kind])[row]
        document = layout.document[slot] + use * layout.step[slot]
        places = row * self._length + layout.column[slot]
        return Runs(self._starts[document], places, layout.length[slot])

    def tokens(self, numbers: np.ndarray) -> np.ndarray:
        """Return the tokens in each row, padding not counted; int64 (R,)."""
        return 1 + self._layout.filled[self._layout.kind_of(numbers)]

    def accounts(self) -> dict[str, int]:
        """Return what became of the split: rows, tokens in them, positions that hold nothing.

        `cuts` are those through documents that are longer than a row; no token is left out.
        """
        padding = self.num_rows * self._length - self.num_tokens
        counted = {"rows": self.num_rows, "tokens": self.num_tokens, "padding": padding}
        return {**counted, "cuts": self._cuts, "left_out": 0}


def _parts(offsets: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """Return start and length of each document, those longer than `room` cut into pieces."""
    sizes = np.diff(offsets)
    counts = -(-sizes // room)
    if not len(counts) or counts.max() <= 1:
        return offsets[:-1], sizes
    inside = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = np.repeat(offsets[:-1], counts) + inside * room
    return starts, np.minimum(room, np.repeat(offsets[1:], counts) - starts)


@dataclass(frozen=True)
class _Layout:
    """Rows by kind: rows of a kind hold documents of the same lengths in the same slots.

    The k-th row of a kind has in slot s the document `document[s] + k * step[s]`, counted in the
    order of length.
    """

    first_row: np.ndarray
    """First row of each kind, and the end."""
    first_slot: np.ndarray
    """First slot of each kind, and the end."""
    filled: np.ndarray
    """Tokens in the slots of a row of each kind."""
    length: np.ndarray
    """Tokens of each slot."""
    column: np.ndarray
    """First position of each slot in the row; position 0 is EOS."""
    document: np.ndarray
    """Document of each slot in the first row of the kind."""
    step: np.ndarray
    """Documents of the slot's length that a row of the kind takes."""

    @classmethod
    def of(cls, counts: np.ndarray, room: int) -> "_Layout":
        """Lay out `counts[l]` documents of each length l in rows with `room` tokens."""
        following = np.concatenate([[0], np.cumsum(counts)])[:-1].tolist()
        slots: list[tuple[int, int, int, int]] = []
        first_row, first_slot, filled = [0], [0], []
        for kind, times in best_fit(counts, room):
            column = 1
            for length, number in kind:
                for taken in range(number):
                    slots.append((length, column, following[length] + taken, number))
                    column += length
                following[length] += number * times
            first_row.append(first_row[-1] + times)
            first_slot.append(len(slots))
            filled.append(column - 1)
        table = np.array(slots, dtype=np.int64).reshape(-1, 4).T
        return cls(np.array(first_row), np.array(first_slot), np.array(filled), *table)

    def kind_of(self, numbers: np.ndarray) -> np.ndarray:
        """Return the kind of each row."""
        return np.searchsorted(self.first_row, numbers, "right") - 1


Kind = list[tuple[int, int]]
"""Lengths of the documents of a row and how many of each, longest first."""


def best_fit(counts: np.ndarray, room: int) -> list[tuple[Kind, int]]:
    """Return the rows that best fit makes of `counts[l]` documents of length l: (kind, times).

    The same rows as one by one: a kind is repeated until one of its lengths runs short.
    """
    left = counts.tolist()
    shorter = list(range(room + 1))  # the longest length up to this one that is not used up

    def longest(limit: int) -> int:
        path = []
        while limit and not left[limit]:
            path.append(limit)
            limit = shorter[limit] if shorter[limit] < limit else limit - 1
        for length in path:
            shorter[length] = limit
        return limit

    rows = []
    while first := longest(room):
        kind, free, length = [], room, first
        while length:
            number = min(left[length], free // length)
            kind.append((length, number))
            free -= number * length
            length = longest(min(free, length - 1))
        times = min(left[length] // number for length, number in kind)
        for length, number in kind:
            left[length] -= number * times
        rows.append((kind, times))
    return rows
