"""Leaves out training rows that hold what stage 05 measures on.

A row goes as a whole where its texts hold at least 80 % of the word 13-grams of an item; one that
shares fewer stays and is written down. See `utils.data.corpus.decontamination` for items and grams.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from utils.chat.layouts import Preference
from utils.chat.templates import Message
from utils.config.training import AdapterConfig
from utils.data.corpus.decontamination import Findings, Protected, screen
from utils.evaluation.benchmark_items import benchmark_items

ROWS_AT_ONCE = 2_000
MAX_RECORDS = 1_000

Row = TypeVar("Row")
log = logging.getLogger(__name__)


@dataclass
class Screening(Generic[Row]):
    """The rows that stay, and what was found in the others and in them."""

    rows: list[Row]
    dropped: int = 0
    findings: dict[str, Any] = field(default_factory=dict)
    """Per benchmark: name, origin, items, items_found, paragraphs_cut; paragraphs_marked."""
    records: list[dict[str, str | int]] = field(default_factory=list)
    """The first matches: row (from 1), paragraph, text, detail."""


def decontaminated(
    cfg: AdapterConfig, rows: Sequence[Row], text_of: Callable[[Row], str]
) -> Screening[Row]:
    """Return the rows without those that hold an item of a benchmark that is at hand."""
    sets = benchmark_items(cfg.eval_data_dir) if cfg.decontaminate else []
    if not sets:
        return Screening(list(rows))
    protected = Protected.of([text for one in sets for text in one.texts])
    report, result = Findings(sets), Screening[Row]([])
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = rows[start : start + ROWS_AT_ONCE]
        for number, found in enumerate(screen([text_of(row) for row in part], protected)):
            if found is None or not found.cut:
                result.rows.append(part[number])
            if found is not None:
                matches = [*found.cut, *found.marked]
                result.records += report.records(f"row {start + number + 1}", matches)
        del result.records[MAX_RECORDS:]
    result.dropped = len(rows) - len(result.rows)
    result.findings = report.as_dict()
    return result


def conversation_text(messages: list[Message]) -> str:
    """Return what is said in a conversation."""
    return "\n\n".join(message["content"] for message in messages)


def preference_text(row: Preference) -> str:
    """Return what is said in a conversation and in both of its answers."""
    return "\n\n".join((conversation_text(row.prompt), row.chosen, row.rejected))
