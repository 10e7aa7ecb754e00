"""Which rows are trained on, which are held out, and in which order.

Knows nothing about files' layouts and tokens: see `utils.chat.rows`.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from utils.chat.rows import BadRow, DPORows, SFTRows
from utils.errors import DataError

HELDOUT_SHARE = 0.05
"""Part of the training rows held out where there is no held-out file."""
MAX_HELDOUT = 500
"""Held-out rows that are measured at most."""

Row = TypeVar("Row")


@dataclass
class Split:
    """What the files of a run hold: read = training + held_out + bad."""

    training: list[Any]
    heldout: list[Any]
    bad: list[BadRow]
    """Of both files."""
    read: int
    """Rows read, without those of a held-out file that are good."""
    held_out: int
    """Training rows set aside because there is no held-out file."""

    def counts(self, kept: int, dropped: Counter[str]) -> dict[str, Any]:
        """Return rows = kept + held_out + bad + the sum of dropped."""
        counts = {"rows": self.read, "kept": kept, "held_out": self.held_out, "bad": len(self.bad)}
        assert self.read == kept + self.held_out + len(self.bad) + dropped.total(), counts
        return {**counts, "dropped": dict(dropped)}


def read_split(
    read: Callable[[Path], tuple[list[Any], list[BadRow]]],
    dataset: Path,
    heldout: Path | None,
    seed: int,
) -> Split:
    """Read a training file with `read`, and its held-out file or else hold some rows out.

    Raises:
        DataError: a file is missing or holds no usable row.
    """
    rows, bad = read(dataset)
    file = heldout_file(dataset, heldout)
    if file is None:
        training, held = hold_out(rows, seed)
        return Split(training, held, bad, len(rows) + len(bad), len(held))
    held, held_bad = read(file)
    return Split(rows, held, bad + held_bad, len(rows) + len(bad) + len(held_bad), 0)


def heldout_file(dataset: Path, heldout: Path | None) -> Path | None:
    """Return the held-out file: the one given, else NAME_heldout.json beside the training set.

    Raises:
        DataError: the one given is missing.
    """
    if heldout is not None:
        if not heldout.is_file():
            raise DataError(f"{heldout} not found: correct --heldout_path, or leave it out")
        return heldout
    name, dot, ending = dataset.name.partition(".")
    beside = dataset.with_name(f"{name}_heldout{dot}{ending}")
    return beside if beside.is_file() else None


def hold_out(rows: list[Row], seed: int) -> tuple[list[Row], list[Row]]:
    """Split rows into (training, held-out): 5 %, at least one and at most 500, chosen by `seed`.

    Raises:
        DataError: there are fewer than two rows.
    """
    if len(rows) < 2:
        raise DataError(
            f"{len(rows)} usable row(s) cannot be split into training and held-out rows: "
            "add rows, or pass --heldout_path"
        )
    count = min(MAX_HELDOUT, max(1, round(len(rows) * HELDOUT_SHARE)))
    chosen = set(random.Random(seed).sample(range(len(rows)), count))
    training = [row for number, row in enumerate(rows) if number not in chosen]
    return training, [rows[number] for number in sorted(chosen)]


def require_rows(rows: SFTRows | DPORows, path: Path, length: int) -> None:
    """Check that something is left.

    Raises:
        DataError: every row was dropped; the reasons are named.
    """
    if not len(rows):
        reasons = ", ".join(f"{count} {reason}" for reason, count in rows.dropped.items())
        raise DataError(
            f"{path}: all rows are dropped ({reasons}; the limit is {length} tokens): shorten or "
            "replace them, or raise --max_length up to the model's context"
        )


def measured(rows: SFTRows | DPORows) -> int:
    """Return how many held-out rows are measured."""
    return min(len(rows), MAX_HELDOUT)


def batch_order(lengths: Sequence[int], batch_rows: int, rows: int, seed: int) -> list[int]:
    """Return at least `rows` row numbers, pass after pass, rows of like length beside each other.

    Each pass holds every row once; pools of 16 shuffled batches are sorted by length and cut into
    batches, which are shuffled. A pure function of its arguments.
    """
    order: list[int] = []
    generator = random.Random(seed)
    while len(order) < rows:
        numbers = list(range(len(lengths)))
        generator.shuffle(numbers)
        pool = batch_rows * 16
        batches: list[list[int]] = []
        for start in range(0, len(numbers), pool):
            part = sorted(numbers[start : start + pool], key=lambda number: lengths[number])
            batches += [part[at : at + batch_rows] for at in range(0, len(part), batch_rows)]
        # The short last batch stays last, so that the others start on batch boundaries.
        whole = [batch for batch in batches if len(batch) == batch_rows]
        generator.shuffle(whole)
        ragged = [batch for batch in batches if len(batch) != batch_rows]
        order += [number for batch in (*whole, *ragged) for number in batch]
    return order[:rows]
