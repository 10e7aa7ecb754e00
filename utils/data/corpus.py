"""All cleaned units as one sequence of documents, and what became of each.

A document takes one byte of memory; everything else is read from the store when it is asked for.
"""

from collections.abc import Iterator
from enum import IntEnum

import numpy as np

from utils.data.cleaned import Cleaned


class Fate(IntEnum):
    """What became of a cleaned document."""

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
    """The documents of all units in reading order."""

    def __init__(self, units: list[Cleaned]) -> None:
        self.units = units
        self.starts = np.cumsum([0, *(unit.documents for unit in units)])
        """Number of the first document of each unit, and of all documents."""
        self.fates = np.zeros(len(self), np.uint8)
        self.results = {unit.name for unit in units}
        """Names of the stored results that this corpus and what follows from it are made of."""

    def __len__(self) -> int:
        return int(self.starts[-1])

    def place(self, number: int) -> tuple[Cleaned, int]:
        """Return the unit of a document and its number within the unit."""
        at = int(np.searchsorted(self.starts, number, "right")) - 1
        return self.units[at], number - int(self.starts[at])

    def row(self, number: int) -> dict[str, str]:
        """Return a document as {"id", "text", "source"}."""
        unit, own = self.place(number)
        return unit.row(own)

    def parts(self) -> Iterator[tuple[Cleaned, np.ndarray]]:
        """Yield each unit with the fates of its documents, which may be changed in place."""
        for unit, start in zip(self.units, self.starts.tolist(), strict=False):
            yield unit, self.fates[start : start + unit.documents]

    def count(self, fate: Fate) -> int:
        """Return how many documents have a fate."""
        return int(np.count_nonzero(self.fates == fate))

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
