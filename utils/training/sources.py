"""Accounts of the training data: what packing made of it, and what was drawn from each folder.

What is drawn is a pure function of (seed, rows): nothing is counted along.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.data.packed import PackedDataset

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
    data: PackedDataset, folders: Sequence[Path], seed: int, num_rows: int
) -> list[dict[str, Any]]:
    """Return for run.json what the first `num_rows` rows hold of each folder."""
    return [
        {
            "data_dir": str(folder),
            "rows": drawn.rows,
            "tokens": drawn.tokens,
            "passes": round(drawn.passes, 4),
            "packed": source.accounts(),
        }
        for folder, source, drawn in zip(
            folders, data.sources, data.drawn(seed, num_rows), strict=True
        )
    ]


def source_metrics(
    data: PackedDataset, folders: Sequence[Path], seed: int, num_rows: int
) -> dict[str, int]:
    """Return the tokens drawn from each of several folders, for metrics.jsonl."""
    if len(folders) == 1:
        return {}
    drawn = data.drawn(seed, num_rows)
    return {
        f"tokens_{number}_{folder.name}": part.tokens
        for number, (folder, part) in enumerate(zip(folders, drawn, strict=True))
    }
