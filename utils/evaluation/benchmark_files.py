"""Evaluation data: local files in the public formats first, else the hub, else a reason why not.

Knows where the three benchmarks lie and how their rows look; nothing about scoring.
"""

import functools
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.errors import DataError
from utils.reading.documents import BadLine
from utils.reading.rows import read_rows as rows_of_file

HUB_TIMEOUT_S = 5.0
"""How long the hub may take to answer at all before it counts as out of reach."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Benchmark:
    """Where the rows of one benchmark are to be found."""

    name: str
    files: tuple[str, ...]
    """Names below --data_dir in order of preference; * and ** are patterns."""
    hub: tuple[str, str | None, str]
    """(repository, configuration, split) on the Hugging Face hub."""
    keys: tuple[str, ...]
    """Every row has text under one of these."""


WIKITEXT = Benchmark(
    "WikiText-2",
    (
        "wikitext2/wiki.test.raw",
        "wikitext-2-raw/wiki.test.raw",
        "wikitext/wiki.test.raw",
        "wiki.test.raw",
        "wikitext*/**/test-*.parquet",
    ),
    ("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1", "test"),
    ("text", "page"),
)
BOOLQ = Benchmark(
    "BoolQ",
    (
        "boolq/val.jsonl",
        "BoolQ/val.jsonl",
        "boolq/dev.jsonl",
        "boolq/validation*.jsonl",
        "boolq/validation-*.parquet",
        "boolq.jsonl",
        "boolq_val.jsonl",
    ),
    ("aps/super_glue", "boolq", "validation"),
    ("passage",),
)
LAMBADA = Benchmark(
    "LAMBADA",
    (
        "lambada/lambada_test.jsonl",
        "lambada/lambada_test_en.jsonl",
        "lambada/test.jsonl",
        "lambada_openai/**/test*.jsonl",
        "lambada/test-*.parquet",
        "lambada_test.jsonl",
        "lambada.jsonl",
    ),
    ("EleutherAI/lambada_openai", "default", "test"),
    ("text",),
)


@dataclass(frozen=True)
class Rows:
    """The rows of a benchmark and where they came from."""

    rows: list[dict[str, Any]]
    origin: str
    """File name below --data_dir, or hub:REPOSITORY."""


def benchmark_rows(benchmark: Benchmark, data_dir: Path | None) -> Rows:
    """Return all rows of a benchmark, in file order.

    Raises:
        DataError: they are neither local nor to be had from the hub; the message has both reasons.
    """
    if data_dir is None:
        return Rows(_from_hub(benchmark, f"no {benchmark.name} files"), f"hub:{benchmark.hub[0]}")
    if not data_dir.is_dir():
        raise DataError(f"--data_dir {data_dir} is no folder: pass one with {benchmark.files[0]}")
    for pattern in benchmark.files:
        for path in sorted(data_dir.glob(pattern)):
            return Rows(
                _checked(benchmark, _read(path), path), path.relative_to(data_dir).as_posix()
            )
    missing = f"{data_dir} has no {benchmark.files[0]}"
    return Rows(_from_hub(benchmark, missing), f"hub:{benchmark.hub[0]}")


def _read(path: Path) -> list[dict[str, Any]]:
    if path.suffix != ".raw":
        return read_rows(path)
    try:
        return [{"text": path.read_text(encoding="utf-8")}]
    except (OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path} cannot be read ({reason}): fetch it again") from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return all rows of a file, each an object.

    Raises:
        DataError: the file is missing or empty, or a row is none (its place is named).
    """
    if not path.is_file():
        raise DataError(f"{path} not found: check the path")
    rows = []
    for row in rows_of_file(path):
        if isinstance(row, BadLine):
            raise DataError(f"{row.place}: {row.reason}: correct it, or fetch the file again")
        rows.append(row.value)
    if not rows:
        raise DataError(f"{path} holds no rows: give at least one")
    return rows


def _checked(
    benchmark: Benchmark, rows: list[dict[str, Any]], path: Path | str
) -> list[dict[str, Any]]:
    """Check the layout of the rows."""
    for number, row in enumerate(rows, 1):
        if not any(isinstance(row.get(key), str) for key in benchmark.keys):
            raise DataError(
                f"{path}: row {number} of {benchmark.name} has no {' or '.join(benchmark.keys)}: "
                "use the file as it is published"
            )
    return rows


def _from_hub(benchmark: Benchmark, missing: str) -> list[dict[str, Any]]:
    """Load a benchmark with `datasets` (its cache included) or say why that does not work."""
    remedy = f"pass --data_dir with {benchmark.files[0]} (EVAL_DATA_DIR in make), or go online"
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "30")
    import datasets
    from datasets import config
    from datasets.exceptions import DatasetsError

    repository, configuration, split = benchmark.hub
    was_offline = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = was_offline or not hub_answers()
    try:
        table = datasets.load_dataset(repository, configuration, split=split)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        offline = "the hub cannot be reached" if config.HF_HUB_OFFLINE else None
        raise DataError(f"{missing} and {offline or _first_line(error)}: {remedy}") from error
    finally:
        config.HF_HUB_OFFLINE = was_offline
    return _checked(benchmark, [dict(row) for row in table if isinstance(row, Mapping)], repository)


@functools.lru_cache(maxsize=1)
def hub_answers() -> bool:
    """Return whether the hub answers within HUB_TIMEOUT_S (asked once a process)."""
    import httpx

    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        httpx.head(endpoint, timeout=HUB_TIMEOUT_S, follow_redirects=False)
    except httpx.HTTPError as error:
        log.info("%s does not answer (%s)", endpoint, _first_line(error))
        return False
    return True


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
