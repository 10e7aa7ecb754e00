"""Documents of local files: txt, md, html, jsonl, json, csv, parquet, each also .gz and .zst.

Files in a zip archive are read as if they lay in a folder; a book (EPUB) gives a document for each
chapter. A broken line or file becomes a `BadLine` and the reader goes on; only what memory could
not hold is cut. Knows nothing about cleaning.
"""

from dataclasses import replace
from pathlib import Path

from utils.reading.archives import Archive
from utils.reading.documents import (
    BadLine,
    Document,
    Records,
    Row,
    Rows,
    SkippedFile,
    row_id,
    row_text,
)
from utils.reading.epub import read_book
from utils.reading.file_parts import ARCHIVES, FilePart, part_blocks
from utils.reading.formats import TEXT_KEY, TEXT_READERS, read_html, read_text
from utils.reading.parquet import parquet_rows
from utils.reading.rows import (
    ROW_READERS,
    file_kind,
    json_lines,
    numbered_lines,
    torn_line,
    until_torn,
)
from utils.reading.streams import Readable, TornFile

FORMATS = frozenset({*ROW_READERS, *TEXT_READERS})
KINDS = FORMATS | ARCHIVES
"""Suffixes of all that is read."""


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
    return _read(path, name, source, text_key)


def read_part(part: FilePart, source: str, text_key: str) -> Records:
    """Yield the documents of a part of a file as `read_file` does."""
    if part.groups is not None:
        rows = parquet_rows(part.path, part.name, _column(text_key), part.groups, part.first_line)
    elif part.end is not None:
        lines = numbered_lines(part_blocks(part), part.name, part.first_line)
        rows = json_lines(lines, part.name)
    else:
        return read_file(Path(part.path), part.name, source, text_key)
    return _documents(rows, part.name, source, text_key)


def _read(file: Readable, name: str, source: str, text_key: str) -> Records:
    """Yield the documents of what is no archive."""
    kind = file_kind(file)
    if reader := ROW_READERS.get(kind):
        return _documents(reader(file, name, _column(text_key)), name, source, text_key)
    return _documents(TEXT_READERS.get(kind, read_text)(file, name), name, source, TEXT_KEY)


def _column(text_key: str) -> str:
    return text_key.split(".")[0]


def _read_zip(path: Path, name: str, source: str, text_key: str) -> Records:
    with Archive(path) as archive:
        for member in archive.members():
            if file_kind(member) in FORMATS:
                yield from _read(member, f"{name}/{member.name}", source, text_key)


def skipped_members(path: Path, name: str) -> list[SkippedFile]:
    """Return the files in a zip archive of kinds that are not read, archives among them."""
    if file_kind(path) != ".zip":
        return []
    try:
        with Archive(path) as archive:
            return [
                SkippedFile(f"{name}/{member.name}", Path(member.name).suffix or "no suffix")
                for member in archive.members()
                if file_kind(member) not in FORMATS
            ]
    except (TornFile, OSError):
        return []  # reading it will say so


def _read_epub(path: Path, name: str, source: str) -> Records:
    """Yield the chapters of a book; its title stands above the first one."""
    with Archive(path) as archive:
        book = read_book(archive)
        title = book.title
        for chapter in book.chapters:
            place = f"{name}/{chapter.name}"
            for record in _documents(read_html(chapter, place), place, source, TEXT_KEY):
                if title and isinstance(record, Document) and record.text:
                    if title not in record.text:
                        record = replace(record, text=f"{title}\n\n{record.text}")
                    title = ""
                yield record


def _guarded(records: Records, name: str) -> Records:
    try:
        yield from records
    except (TornFile, OSError) as error:
        yield torn_line(error, name, 0)


def _documents(rows: Rows, name: str, source: str, text_key: str) -> Records:
    for row in until_torn(rows, name):
        yield row if isinstance(row, BadLine) else _document(row, source, text_key)


def _document(row: Row, source: str, text_key: str) -> Document | BadLine:
    try:
        return Document(row_id(row.value, row.place), row_text(row.value, text_key), source)
    except ValueError as error:
        return BadLine(row.file, row.line, str(error), row.num_bytes)
