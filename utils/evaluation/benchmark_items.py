"""The texts of the benchmarks that stage 05 measures, for stage 01 to keep out of training.

Knows which part of a row a model must not have seen; nothing about how it is found.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from utils.data.corpus.decontamination import ItemSet
from utils.errors import DataError
from utils.evaluation.benchmark_files import BOOLQ, LAMBADA, WIKITEXT, Benchmark, benchmark_rows

MAX_TITLE = 100
"""Longest title in characters (75 in BoolQ); a later dash belongs to the passage."""

log = logging.getLogger(__name__)


def _paragraphs(row: dict[str, Any]) -> list[str]:
    """Return the paragraphs of WikiText: its lines."""
    text = row.get("text") or row.get("page") or ""
    return [line.strip() for line in text.split("\n") if line.strip()]


def _passage(row: dict[str, Any]) -> list[str]:
    """Return a passage of BoolQ without the title of its article.

    SuperGLUE puts "Title -- " in front, which no article has at that place: with it 1,400 of the
    3,270 passages were found in the articles they are from, without it 1,451.
    """
    title, dash, passage = row["passage"].partition(" -- ")
    return [passage if dash and len(title) <= MAX_TITLE else row["passage"]]


def _text(row: dict[str, Any]) -> list[str]:
    return [row["text"]]


ITEMS: tuple[tuple[Benchmark, Callable[[dict[str, Any]], list[str]]], ...] = (
    (WIKITEXT, _paragraphs),
    (BOOLQ, _passage),
    (LAMBADA, _text),
)


def benchmark_items(data_dir: Path | None) -> list[ItemSet]:
    """Return the items of each benchmark that is at hand, each text once; say which are not."""
    folder = data_dir.expanduser() if data_dir is not None else None
    sets, missing = [], []
    for source, texts_of in ITEMS:
        try:
            found = benchmark_rows(source, folder)
        except DataError as error:
            log.debug("%s", error)
            missing.append(source.name)
            continue
        texts = dict.fromkeys(text for row in found.rows for text in texts_of(row))
        sets.append(ItemSet(source.name, found.origin, list(texts)))
    if missing:
        log.info(
            "not decontaminated against %s: not at hand (pass --eval_data_dir, or go online)",
            ", ".join(missing),
        )
    return sets
