"""All cleaned units as one sequence of documents, and what became of each.

A document takes one byte of memory; everything else is read from the store when it is asked for.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import IntEnum

import numpy as np

from utils.data.corpus.cleaned_unit import CleanedUnit


class Fate(IntEnum):
    """Decision about a cleaned document: its split, or why it goes."""

    TRAIN = 0
    VALIDATION = 1
    EXACT_DUPLICATE = 2
    NEAR_DUPLICATE = 3
    OVER_MIXTURE_WEIGHT = 4
    CONTAMINATED = 5


KEPT = Fate.VALIDATION
"""Fates up to this one are those of the documents in the result."""
SPLITS = {"train": Fate.TRAIN, "val": Fate.VALIDATION}


class Corpus:
    """Sequence of the documents of all units in reading order.

    They come in rounds: what was decided about the documents of earlier rounds is settled when
    those of a later one come, and is never changed again.
    """

    def __init__(self, units: Sequence[CleanedUnit] = ()) -> None:
        self.units: list[CleanedUnit] = []
        self.starts = np.zeros(1, np.int64)
        """Number of the first document of each unit, and of all documents."""
        self.fates = np.zeros(0, np.uint8)
        self.borders: list[int] = []
        """Units up to the end of each round."""
        self.results: set[str] = set()
        """Names of the stored results that this corpus and what follows from it are made of."""
        self.tokens: Counter[tuple[int, str]] = Counter()
        """Tokens of each source (its number) in each split, once they are encoded."""
        if units:
            self.grow(units)

    def grow(self, units: Sequence[CleanedUnit]) -> None:
        """Append the units of a round; all documents so far are settled."""
        self.units += units
        self.borders.append(len(self.units))
        ends = np.cumsum([unit.documents for unit in units], dtype=np.int64) + len(self)
        self.starts = np.concatenate((self.starts, ends))
        new = np.zeros(len(self) - len(self.fates), np.uint8)
        self.fates = np.concatenate((self.fates, new))
        self.results.update(unit.name for unit in units)

    @property
    def first_new_unit(self) -> int:
        """Number of the first unit of the newest round."""
        return self.borders[-2] if len(self.borders) > 1 else 0

    @property
    def num_settled(self) -> int:
        """Documents of all rounds but the newest: the first so many."""
        return int(self.starts[self.first_new_unit])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def place(self, number: int) -> tuple[CleanedUnit, int]:
        """Return the unit of a document, as it was cleaned, and its number within the unit."""
        at = int(np.searchsorted(self.starts, number, "right")) - 1
        return replace(self.units[at], cuts=""), number - int(self.starts[at])

    def row(self, number: int) -> dict[str, str]:
        """Return a document, as it was cleaned, as {"id", "text", "source"}."""
        unit, own = self.place(number)
        return unit.row(own)

    def parts(
        self, first: int = 0, last: int | None = None
    ) -> Iterator[tuple[CleanedUnit, np.ndarray]]:
        """Yield units [first, last) with the fates of their documents, to be changed in place."""
        for at, unit in enumerate(self.units[first:last], start=first):
            yield unit, self.fates[self.starts[at] : self.starts[at + 1]]

    def new_parts(self) -> Iterator[tuple[CleanedUnit, np.ndarray]]:
        """Yield the units of the newest round with the fates of their documents."""
        return self.parts(self.first_new_unit)

    def count(self, fate: Fate) -> int:
        """Return how many documents have a fate."""
        return int(np.count_nonzero(self.fates == fate))

    @property
    def counts(self) -> Counter[str]:
        """Counts of cleaning over all units (`Refined.counts`)."""
        counts: Counter[str] = Counter()
        for unit in self.units:
            counts.update(unit.record()["counts"])  # `+=` would lose negative counts
        return counts

    @property
    def num_kept(self) -> int:
        """Documents that are in the result, as far as is known."""
        return int(np.count_nonzero(self.fates <= KEPT))

    def texts(self, fate: Fate) -> Iterator[str]:
        """Yield the texts of the documents that have a fate."""
        for unit, fates in self.parts():
            yield from unit.texts(np.flatnonzero(fates == fate).tolist())

    def kept(self, column: str) -> Iterator[np.ndarray]:
        """Yield a column of each unit, the documents in the result only."""
        for unit, fates in self.parts():
            yield unit.column(column)[fates <= KEPT]
