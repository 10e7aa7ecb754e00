"""Makes the built-in corpus: docstrings of the standard library and of the installed packages.

About 36 MB of English technical prose that lies on every machine that runs Lumi. It is read from
source files in several processes and kept in data/raw/pydocs under a fingerprint of the Python and
package versions, so it is the same wherever these are the same. No source is imported, except a few
modules compiled into Python, which have no source. Deduplication and cleaning are stage 01's.
"""

import json
import logging
import os
import platform
from collections.abc import Collection, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from utils.data.builtin.docstrings import DocRecord, extract_records, extract_topics
from utils.data.builtin.installed import (
    COMPILED_MODULES,
    SourceFile,
    compiled_records,
    distributions,
    find_sources,
)
from utils.data.work.workers import Workers
from utils.errors import DataError
from utils.files import (
    atomic_folder,
    fingerprint,
    folder_damage,
    read_json,
    recover_folder,
)
from utils.lock import one_writer
from utils.log import progress

FORMAT = 1
"""Raised when the records change, so that older caches are made again."""
CACHE = Path("data/raw/pydocs")
MIN_DOCUMENT_CHARACTERS = 80
"""Shortest docstring that becomes a document; the practice sets use shorter ones too."""
FILES_PER_TASK = 32

log = logging.getLogger(__name__)


def pydocs_documents(
    cache: Path = CACHE, only: Collection[str] | None = None, num_workers: int | None = None
) -> Iterator[dict[str, str]]:
    """Yield {"id", "text", "source"} of each docstring of at least 80 characters, sorted by id.

    Raises:
        DataError: no docstring was found.
    """
    for record in pydocs_records(cache, only, num_workers):
        if len(record.doc) >= MIN_DOCUMENT_CHARACTERS:
            yield {"id": record.name, "text": record.text, "source": record.source}


def pydocs_records(
    cache: Path = CACHE, only: Collection[str] | None = None, num_workers: int | None = None
) -> Iterator[DocRecord]:
    """Yield every docstring of at least 20 characters with its name, kind and signature.

    `only` keeps these top-level modules ("json", "torch", "pydoc_data" for the language reference).

    Raises:
        DataError: no docstring was found.
    """
    key = cache_key(only)
    recover_folder(cache)
    if not _is_current(cache, key):
        with one_writer(cache):
            _fill(cache, key, only, num_workers)
    with (cache / "records.jsonl").open(encoding="utf-8") as file:
        for line in file:
            yield DocRecord(**json.loads(line))


def cache_key(only: Collection[str] | None) -> str:
    """Return what the records depend on: versions and the choice of modules, but no path."""
    packages = sorted({f"{dist.name}=={dist.version}" for dist in distributions()})
    chosen = None if only is None else sorted(only)
    return fingerprint([FORMAT, platform.python_version(), packages, chosen])


def _is_current(cache: Path, key: str) -> bool:
    if not cache.exists():
        return False
    if damage := folder_damage(cache):
        log.warning("%s: extracting the docstrings again", damage)
        return False
    return read_json(cache / "manifest.json").get("key") == key


def _fill(cache: Path, key: str, only: Collection[str] | None, num_workers: int | None) -> None:
    """Extract all records into `cache`."""
    sources = find_sources(only)
    records, unreadable = extract(sources, num_workers)
    records += [
        record
        for name in COMPILED_MODULES
        if only is None or name in only
        for record in compiled_records(name)
    ]
    records = _unique(records)
    if not records:
        raise DataError(
            f"no docstring found in {len(sources)} Python files ({unreadable} unreadable): run "
            "`make install`, or prepare your own texts with --input_path"
        )
    counts = {"records": len(records), "files": len(sources), "unreadable_files": unreadable}
    lines = (json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records)
    with (
        atomic_folder(cache, kind="pydocs", key=key, **counts) as folder,
        (folder / "records.jsonl").open("w", encoding="utf-8", newline="\n") as file,
    ):
        file.writelines(lines)
    log.info("%d docstrings of %d files (%d unreadable) -> %s", *counts.values(), cache)


def extract(
    sources: list[SourceFile], num_workers: int | None = None
) -> tuple[list[DocRecord], int]:
    """Return the records of all files in their order, and how many files could not be read."""
    tasks = [sources[at : at + FILES_PER_TASK] for at in range(0, len(sources), FILES_PER_TASK)]
    num_workers = min(num_workers or os.cpu_count() or 1, max(1, len(tasks)))
    records: list[DocRecord] = []
    unreadable = 0
    with progress("docstrings", len(sources), "files") as task, Workers(num_workers) as workers:
        done = workers.map(_extract_files, tasks)
        for files, (found, failed) in zip(tasks, done, strict=True):
            records += found
            unreadable += failed
            task.advance(len(files), f"{len(records):,} texts")
    return records, unreadable


def _extract_files(files: list[SourceFile]) -> tuple[list[DocRecord], int]:
    records: list[DocRecord] = []
    unreadable = 0
    for file in files:
        try:
            code = file.path.read_bytes()
            if file.module == "pydoc_data.topics":
                records += extract_topics(code)
            else:
                records += extract_records(code, file.module, file.source)
        except (OSError, SyntaxError, ValueError, RecursionError):
            unreadable += 1
    return records, unreadable


def _unique(records: list[DocRecord]) -> list[DocRecord]:
    """Drop repeated docstrings (copies in other packages) and make the names unique.

    Of equal ones the standard library's stays, else the one with a public name.
    """
    ranked = sorted(
        records, key=lambda record: (record.source != "python", not record.is_public, record.name)
    )
    docs: set[str] = set()
    names: dict[str, int] = {}
    kept: list[DocRecord] = []
    for record in ranked:
        if record.doc in docs:
            continue
        docs.add(record.doc)
        count = names[record.name] = names.get(record.name, 0) + 1
        kept.append(record if count == 1 else replace(record, name=f"{record.name}#{count}"))
    return sorted(kept, key=lambda record: record.name)
