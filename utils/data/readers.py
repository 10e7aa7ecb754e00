"""Documents of local files: txt, md, html, jsonl, json, csv, parquet, each also .gz and .zst.

A broken line or file becomes a `BadLine` and the reader goes on; only what memory could not hold is
cut. Knows nothing about cleaning.
"""

import csv
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import orjson

from utils.data.cleaning import html_to_text
from utils.data.parquet import parquet_rows
from utils.data.pieces import Piece, piece_blocks
from utils.data.records import BadLine, Document, row_id, row_text
from utils.data.streams import TornFile, decode_line, read_blocks, read_lines, text_blocks

MAX_FILE_BYTES = 1 << 29
"""Largest json or html file (512 MiB): these are parsed as a whole."""
TEXT_CHARACTERS = 1_000_000
"""A longer text file is read as several documents, cut at blank lines (at 4 times this anyway)."""
DOCUMENT_END = "<|endoftext|>"
"""A line that separates the documents of one text file (as in TinyStories)."""
ARTICLE_TITLE = re.compile(r" = [^=].* = ?")
"""First line of an article in WikiText, whose files end with .raw or .tokens."""
COMPRESSED = (".gz", ".zst")

Records = Iterator[Document | BadLine]


def file_kind(path: Path) -> str:
    """Return the suffix that tells the format: `.jsonl` for `a.jsonl.gz`."""
    name = path.name.lower()
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    return Path(name).suffix


def is_supported(path: Path) -> bool:
    """Return whether files with this name are read when they are found in a folder."""
    return file_kind(path) in READERS


class _Bad:
    """A line that could not be read."""

    def __init__(self, reason: str, characters: int = 0) -> None:
        self.reason = reason
        self.characters = characters


Found = Iterator[tuple[int, "_Bad | tuple[str, str]"]]
"""(line, (own id or "", text)) or (line, what is wrong with it)."""
Lines = Iterator[tuple[int, "bytes | _Bad"]]


def read_file(path: Path, name: str, source: str, text_key: str) -> Records:
    """Yield the documents of one file; `name` is its name in ids and messages.

    A file whose suffix is unknown is read as plain text.
    """
    reader = READERS.get(file_kind(path), _read_text)
    return _records(reader(path, text_key), name, source)


def read_piece(piece: Piece, source: str, text_key: str) -> Records:
    """Yield the documents of a piece of a file as `read_file` does."""
    if piece.groups is not None:
        rows = _parquet_rows(piece.path, text_key, piece.groups, piece.first_line)
        return _records(rows, piece.name, source)
    if piece.end is None:
        return read_file(Path(piece.path), piece.name, source, text_key)
    lines = _numbered(piece_blocks(piece), piece.first_line)
    return _records(_rows(lines, text_key), piece.name, source)


def _records(rows: Found, name: str, source: str) -> Records:
    last = 0
    try:
        for line, found in rows:
            last = line
            if isinstance(found, _Bad):
                yield BadLine(name, line, found.reason, found.characters)
            else:
                own_id, text = found
                place = f"{name}:{line}" if line else name
                yield Document(own_id or place, text, source)
    except TornFile as error:
        yield BadLine(name, last, str(error))
    except OSError as error:
        yield BadLine(name, last, f"cannot be read: {error.strerror or error}")


def _lines(path: Path, *, rows: bool = False) -> Lines:
    return _numbered(text_blocks(path, rows=rows))


def _numbered(blocks: Iterator[bytes], first: int = 1) -> Lines:
    for number, line in read_lines(blocks, first):
        if isinstance(line, int):
            yield number, _Bad(f"line of {line / 2**20:.0f} MiB (16 MiB at most)", line)
        else:
            yield number, line


def _read_jsonl(path: Path, text_key: str) -> Found:
    return _rows(_lines(path, rows=True), text_key)


def _rows(lines: Lines, text_key: str) -> Found:
    for number, line in lines:
        if isinstance(line, _Bad):
            yield number, line
        elif line.strip():
            yield number, _parse_row(line, text_key)


def _parse_row(line: bytes, text_key: str) -> "_Bad | tuple[str, str]":
    try:
        return _row(_parsed(line), text_key)
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 (byte {error.start})"
    except json.JSONDecodeError as error:
        reason = f"not valid JSON ({error.msg}, column {error.colno})"
    except RecursionError:
        reason = "nested too deeply"
    except ValueError as error:
        reason = str(error).split(";")[0]
    return _Bad(reason, len(line))


def _parsed(line: bytes) -> object:
    """Return the value of a JSON line; the standard parser takes more (NaN) and says what is wrong."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(line.decode("utf-8"))


def _row(row: object, text_key: str) -> tuple[str, str]:
    return row_id(row, ""), row_text(row, text_key)


def _read_json(path: Path, text_key: str) -> Found:
    """Read one array of rows, one object, or - as some call such files .json - lines of objects."""
    if _begins_with_rows(path):
        yield from _read_jsonl(path, text_key)
        return
    data = _whole(path, rows=True)
    if isinstance(data, _Bad):
        yield 0, data
        return
    try:
        rows = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        yield from _read_jsonl(path, text_key)
        return
    if isinstance(rows, dict) and isinstance(rows.get("data"), list):
        rows = rows["data"]
    for number, row in enumerate(rows if isinstance(rows, list) else [rows], start=1):
        try:
            yield number, _row(row, text_key)
        except ValueError as error:
            yield number, _Bad(str(error), len(json.dumps(row)))


def _begins_with_rows(path: Path) -> bool:
    """Return whether the first line is an object and the second looks like one (as in C4)."""
    filled = (line for _, line in _lines(path, rows=True) if isinstance(line, _Bad) or line.strip())
    first, second = next(filled, b""), next(filled, b"")
    if isinstance(first, _Bad) or isinstance(second, _Bad) or not second.startswith(b"{"):
        return False
    try:
        return isinstance(_parsed(first), dict)
    except (ValueError, RecursionError):
        return False


def _whole(path: Path, *, rows: bool = False) -> "bytes | _Bad":
    data = bytearray()
    for block in text_blocks(path, rows=rows):
        data += block
        if len(data) > MAX_FILE_BYTES:
            return _Bad(f"larger than {MAX_FILE_BYTES >> 20} MiB: convert it to .jsonl", len(data))
    return bytes(data)


def _read_html(path: Path, text_key: str) -> Found:
    data = _whole(path)
    if isinstance(data, _Bad):
        yield 0, data
    elif data:
        page = "\n".join(decode_line(line) for line in data.split(b"\n"))
        yield 0, ("", html_to_text(page))


def _read_text(path: Path, text_key: str) -> Found:
    """Read a file as one document, or as several where separators or its length ask for it."""
    wikitext = file_kind(path) in {".raw", ".tokens"}
    parts: list[str] = []
    first, count, characters = 1, 0, 0
    for number, line in _lines(path):
        if isinstance(line, _Bad):
            yield number, line
            continue
        text = decode_line(line)
        ends = text.strip() == DOCUMENT_END
        full = characters > TEXT_CHARACTERS * (4 if text.strip() else 1)
        begins = wikitext and ARTICLE_TITLE.fullmatch(text) is not None
        if (ends or full or begins) and parts:
            yield first, ("", "\n".join(parts))
            parts, first, characters, count = [], number, 0, count + 1
        if not ends:
            parts.append(text)
            characters += len(text) + 1
    if parts:
        yield first if count else 0, ("", "\n".join(parts))


def _read_csv(path: Path, text_key: str) -> Found:
    delimiter = "\t" if file_kind(path) == ".tsv" else ","
    csv.field_size_limit(1 << 24)
    bad: list[tuple[int, _Bad]] = []
    rows = csv.DictReader(_csv_lines(path, bad), delimiter=delimiter)
    while True:
        try:
            row = next(rows)
            found: _Bad | tuple[str, str] = _row(row, text_key)
        except StopIteration:
            break
        except (csv.Error, ValueError) as error:
            found = _Bad(str(error))
        yield rows.line_num, found
    yield from bad


def _csv_lines(path: Path, bad: list[tuple[int, _Bad]]) -> Iterator[str]:
    for number, line in _lines(path):
        if isinstance(line, _Bad):
            bad.append((number, line))
        else:
            yield decode_line(line) + "\n"


def _read_parquet(path: Path, text_key: str) -> Found:
    if path.suffix.lower() not in COMPRESSED:
        yield from _parquet_rows(str(path), text_key)
        return
    with tempfile.TemporaryFile() as unpacked:
        unpacked.writelines(read_blocks(path))
        yield from _parquet_rows(unpacked, text_key)


def _parquet_rows(
    source: str | BinaryIO, text_key: str, groups: tuple[int, int] | None = None, first: int = 1
) -> Found:
    for number, row in parquet_rows(source, text_key.split(".")[0], groups, first):
        try:
            yield number, _Bad(row) if isinstance(row, str) else _row(row, text_key)
        except ValueError as error:
            yield number, _Bad(str(error))


READERS: dict[str, Callable[[Path, str], Found]] = {
    **dict.fromkeys((".txt", ".text", ".md", ".markdown", ".rst", ".raw", ".tokens"), _read_text),
    **dict.fromkeys((".html", ".htm", ".xhtml"), _read_html),
    **dict.fromkeys((".jsonl", ".ndjson"), _read_jsonl),
    **dict.fromkeys((".csv", ".tsv"), _read_csv),
    ".json": _read_json,
    ".parquet": _read_parquet,
}
