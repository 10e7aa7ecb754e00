"""Accounts of the training data: what packing made of it, and what was drawn from each folder.

What is drawn is a pure function of (seed, rows): nothing is counted along.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.data.tokens.rows import Drawn, PackedDataset

Windows = Sequence[tuple[int, int]]
"""First and end of runs of global rows."""

log = logging.getLogger(__name__)


def describe_sources(data: PackedDataset, folders: Sequence[Path]) -> None:
    """Log what packing made of each folder."""
    for folder, source in zip(folders, data.sources, strict=True):
        parts = ", ".join(f"{count:,} {name}" for name, count in source.accounts().items())
        log.info("%s: %s", folder, parts.replace("_", " "))


def announce_passes(data: PackedDataset, folders: Sequence[Path], seed: int, num_rows: int) -> None:
    """Say which folders `num_rows` rows see more than once, and how often."""
    drawn = data.drawn_rows(seed, num_rows)
    for folder, source, rows in zip(folders, data.sources, drawn, strict=True):
        if rows > source.num_rows:
            passes = rows / source.num_rows
            log.info("%s: its rows are seen %.1f times in this run", folder, passes)


def account_sources(
    data: PackedDataset, folders: Sequence[Path], seed: int, windows: Windows
) -> list[dict[str, Any]]:
    """Return for run.json what `windows` of global rows hold of each folder."""
    return [
        {
            "data_dir": str(folder),
            "rows": drawn.rows,
            "tokens": drawn.tokens,
            "passes": round(drawn.passes, 4),
            "packed": source.accounts(),
        }
        for folder, source, drawn in zip(
            folders, data.sources, _drawn(data, seed, windows), strict=True
        )
    ]


def source_metrics(
    data: PackedDataset, folders: Sequence[Path], seed: int, windows: Windows
) -> dict[str, int]:
    """Return the tokens drawn from each of several folders, for metrics.jsonl."""
    if len(folders) == 1:
        return {}
    drawn = _drawn(data, seed, windows)
    return {
        f"tokens_{number}_{folder.name}": part.tokens
        for number, (folder, part) in enumerate(zip(folders, drawn, strict=True))
    }


def _drawn(data: PackedDataset, seed: int, windows: Windows) -> list[Drawn]:
    """Return what `windows` hold of each folder: drawn up to their ends less up to their begins."""
    total = [Drawn(0, 0, 0.0)] * len(data.sources)
    borders = ((sign, size) for first, end in windows for sign, size in ((-1, first), (1, end)))
    for sign, size in borders:
        total = [
            Drawn(
                one.rows + sign * part.rows,
                one.tokens + sign * part.tokens,
                one.passes + sign * part.passes,
            )
            for one, part in zip(total, data.drawn(seed, size), strict=True)
        ]
    return total
