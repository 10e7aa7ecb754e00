"""Documents of local files: txt, md, html, jsonl, json, csv, parquet, each also .gz and .zst.

Files in a zip archive are read as if they lay in a folder; a book (EPUB) gives a document for each
chapter. A broken line or file becomes a `BadLine` and the reader goes on; only what memory could
not hold is cut. Knows nothing about cleaning.
"""

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from utils.reading.archives import Archive
from utils.reading.documents import BadLine, Document, SkippedFile
from utils.reading.epub import read_book
from utils.reading.file_parts import ARCHIVES, FilePart, part_blocks
from utils.reading.formats import (
    READERS,
    Bad,
    Found,
    file_kind,
    json_rows,
    numbered_lines,
    read_html,
    read_text,
    table_rows,
)
from utils.reading.streams import TornFile

KINDS = frozenset({*READERS, *ARCHIVES})
"""Suffixes of all that is read."""

Records = Iterator[Document | BadLine]


def is_supported(path: Path) -> bool:
    """Return whether files with this name are read when they are found in a folder."""
    return file_kind(path) in KINDS


def read_file(path: Path, name: str, source: str, text_key: str) -> Records:
    """Yield the documents of one file; `name` is its name in ids and messages.

    A file whose suffix is unknown is read as plain text.
    """
    kind = file_kind(path)
    if kind == ".zip":
        return _guarded(_read_zip(path, name, source, text_key), name)
    if kind == ".epub":
        return _guarded(_read_epub(path, name, source), name)
    return _records(READERS.get(kind, read_text)(path, text_key), name, source)


def read_part(part: FilePart, source: str, text_key: str) -> Records:
    """Yield the documents of a part of a file as `read_file` does."""
    if part.groups is not None:
        rows = table_rows(part.path, text_key, part.groups, part.first_line)
        return _records(rows, part.name, source)
    if part.end is None:
        return read_file(Path(part.path), part.name, source, text_key)
    lines = numbered_lines(part_blocks(part), part.first_line)
    return _records(json_rows(lines, text_key), part.name, source)


def _read_zip(path: Path, name: str, source: str, text_key: str) -> Records:
    with Archive(path) as archive:
        for member in archive.members():
            if reader := READERS.get(file_kind(member)):
                yield from _records(reader(member, text_key), f"{name}/{member.name}", source)


def skipped_members(path: Path, name: str) -> list[SkippedFile]:
    """Return the files in a zip archive of kinds that are not read, archives among them."""
    if file_kind(path) != ".zip":
        return []
    try:
        with Archive(path) as archive:
            return [
                SkippedFile(f"{name}/{member.name}", Path(member.name).suffix or "no suffix")
                for member in archive.members()
                if file_kind(member) not in READERS
            ]
    except (TornFile, OSError):
        return []  # reading it will say so


def _read_epub(path: Path, name: str, source: str) -> Records:
    """Yield the chapters of a book; its title stands above the first one."""
    with Archive(path) as archive:
        book = read_book(archive)
        title = book.title
        for chapter in book.chapters:
            for record in _records(read_html(chapter, ""), f"{name}/{chapter.name}", source):
                if title and isinstance(record, Document) and record.text:
                    if title not in record.text:
                        record = replace(record, text=f"{title}\n\n{record.text}")
                    title = ""
                yield record


def _guarded(records: Records, name: str) -> Records:
    try:
        yield from records
    except (TornFile, OSError) as error:
        yield BadLine(name, 0, _reason(error))


def _records(rows: Found, name: str, source: str) -> Records:
    last = 0
    try:
        for line, found in rows:
            last = line
            if isinstance(found, Bad):
                yield BadLine(name, line, found.reason, found.characters)
            else:
                own_id, text = found
                place = f"{name}:{line}" if line else name
                yield Document(own_id or place, text, source)
    except (TornFile, OSError) as error:
        yield BadLine(name, last, _reason(error))


def _reason(error: TornFile | OSError) -> str:
    """Return why a file gives no more; a full disk (of the temporary file) is not its fault."""
    if isinstance(error, TornFile):
        return str(error)
    if error.errno == errno.ENOSPC:
        raise error
    return f"cannot be read: {' '.join(str(error.strerror or error).split())[:120]}"
