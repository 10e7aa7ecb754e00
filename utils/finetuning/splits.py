"""Which rows are trained on, which are held out, and in which order.

Pure functions; files and tokens are the business of `utils.finetuning.training_rows`.
"""

import random
from collections.abc import Sequence
from typing import TypeVar

from utils.errors import DataError

HELDOUT_SHARE = 0.05
"""Part of the training rows held out where there is no held-out file."""
MAX_HELDOUT = 500
"""Held-out rows that are measured at most."""

Row = TypeVar("Row")


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
