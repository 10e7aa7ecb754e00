"""Formats of files, each read as rows: (line, text) or (line, what is wrong with it).

Knows nothing about names, sources and archives.
"""

import csv
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import orjson

from utils.reading.documents import row_id, row_text
from utils.reading.html_text import html_to_text
from utils.reading.parquet import parquet_rows
from utils.reading.streams import (
    Readable,
    TornFile,
    decode_line,
    read_blocks,
    read_lines,
    text_blocks,
)

MAX_FILE_BYTES = 1 << 29
"""Largest json file (512 MiB): it is parsed as a whole."""
MAX_PAGE_BYTES = 1 << 25
"""Largest page of html (32 MiB)."""
MAX_SPOOLED_BYTES = 1 << 31
"""Largest packed parquet file (2 GiB): it is unpacked into a temporary file."""
TEXT_CHARACTERS = 1_000_000
"""A longer text file is read as several documents, cut at blank lines (at 4 times this anyway)."""
DOCUMENT_END = "<|endoftext|>"
"""A line that separates the documents of one text file (as in TinyStories)."""
ARTICLE_TITLE = re.compile(r" = [^=].* = ?")
"""First line of an article in WikiText, whose files end with .raw or .tokens."""
COMPRESSED = (".gz", ".zst")


@dataclass(frozen=True, slots=True)
class Bad:
    """A line or row that could not be read."""

    reason: str
    characters: int = 0


Found = Iterator[tuple[int, Bad | tuple[str, str]]]
"""(line, (own id or "", text)) or (line, what is wrong with it)."""
Lines = Iterator[tuple[int, bytes | Bad]]


def file_kind(file: Readable) -> str:
    """Return the suffix that tells the format: `.jsonl` for `a.jsonl.gz`."""
    name = file.name.lower()
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    return Path(name).suffix


def _lines(file: Readable, *, rows: bool = False) -> Lines:
    return numbered_lines(text_blocks(file, rows=rows))


def numbered_lines(blocks: Iterator[bytes], first: int = 1) -> Lines:
    """Yield lines with their numbers from `first` on; one that is too long is bad."""
    for number, line in read_lines(blocks, first):
        if isinstance(line, int):
            yield number, Bad(f"line of {line / 2**20:.0f} MiB (16 MiB at most)", line)
        else:
            yield number, line


def _read_jsonl(file: Readable, text_key: str) -> Found:
    return json_rows(_lines(file, rows=True), text_key)


def json_rows(lines: Lines, text_key: str) -> Found:
    """Read lines of JSON objects; blank ones are none."""
    for number, line in lines:
        if isinstance(line, Bad):
            yield number, line
        elif line.strip():
            yield number, _parse_row(line, text_key)


def _parse_row(line: bytes, text_key: str) -> Bad | tuple[str, str]:
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
    return Bad(reason, len(line))


def _parsed(line: bytes) -> object:
    """Return the value of a JSON line; the standard parser takes NaN and says what is wrong."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(line.decode("utf-8"))


def _row(row: object, text_key: str) -> tuple[str, str]:
    return row_id(row, ""), row_text(row, text_key)


def _read_json(file: Readable, text_key: str) -> Found:
    """Read one array of rows, one object, or - as some call such files .json - lines of objects."""
    if _begins_with_rows(file):
        yield from _read_jsonl(file, text_key)
        return
    data = _whole(file, MAX_FILE_BYTES, rows=True)
    if isinstance(data, Bad):
        yield 0, data
        return
    try:
        rows = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        yield from _read_jsonl(file, text_key)
        return
    if isinstance(rows, dict) and isinstance(rows.get("data"), list):
        rows = rows["data"]
    for number, row in enumerate(rows if isinstance(rows, list) else [rows], start=1):
        try:
            yield number, _row(row, text_key)
        except ValueError as error:
            yield number, Bad(str(error), len(json.dumps(row)))


def _begins_with_rows(file: Readable) -> bool:
    """Return whether the first line is an object and the second looks like one (as in C4)."""
    filled = (line for _, line in _lines(file, rows=True) if isinstance(line, Bad) or line.strip())
    first, second = next(filled, b""), next(filled, b"")
    if isinstance(first, Bad) or isinstance(second, Bad) or not second.startswith(b"{"):
        return False
    try:
        return isinstance(_parsed(first), dict)
    except (ValueError, RecursionError):
        return False


def _whole(file: Readable, most: int, *, rows: bool = False) -> bytes | Bad:
    data = bytearray()
    for block in text_blocks(file, rows=rows):
        data += block
        if len(data) > most:
            return Bad(f"larger than {most >> 20} MiB: convert it to .jsonl", len(data))
    return bytes(data)


def read_html(file: Readable, text_key: str) -> Found:
    """Read a page as one document, if there is anything in it."""
    data = _whole(file, MAX_PAGE_BYTES)
    if isinstance(data, Bad):
        yield 0, data
    elif data:
        page = "\n".join(decode_line(line) for line in data.split(b"\n"))
        yield 0, ("", html_to_text(page))


def read_text(file: Readable, text_key: str) -> Found:
    """Read a file as one document, or as several where separators or its length ask for it.

    Raises:
        TornFile: the file is damaged; what came before has been read.
    """
    wikitext = file_kind(file) in {".raw", ".tokens"}
    parts: list[str] = []
    first, count, characters = 1, 0, 0
    torn: list[TornFile] = []
    for number, line in _until_torn(_lines(file), torn):
        if isinstance(line, Bad):
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
    if torn:
        raise torn[0]


def _until_torn(lines: Lines, torn: list[TornFile]) -> Lines:
    try:
        yield from lines
    except TornFile as error:
        torn.append(error)


def _read_csv(file: Readable, text_key: str) -> Found:
    delimiter = "\t" if file_kind(file) == ".tsv" else ","
    csv.field_size_limit(1 << 24)
    bad: list[tuple[int, Bad]] = []
    rows = csv.DictReader(_csv_lines(file, bad), delimiter=delimiter)
    while True:
        try:
            row = next(rows)
            found: Bad | tuple[str, str] = _row(row, text_key)
        except StopIteration:
            break
        except (csv.Error, ValueError) as error:
            found = Bad(str(error))
        yield rows.line_num, found
    yield from bad


def _csv_lines(file: Readable, bad: list[tuple[int, Bad]]) -> Iterator[str]:
    for number, line in _lines(file):
        if isinstance(line, Bad):
            bad.append((number, line))
        else:
            yield decode_line(line) + "\n"


def _read_parquet(file: Readable, text_key: str) -> Found:
    if isinstance(file, Path) and file.suffix.lower() not in COMPRESSED:
        yield from table_rows(str(file), text_key)
        return
    with tempfile.TemporaryFile() as unpacked:
        _spool(file, unpacked)
        yield from table_rows(unpacked, text_key)


def table_rows(
    source: str | BinaryIO, text_key: str, groups: tuple[int, int] | None = None, first: int = 1
) -> Found:
    """Read the rows of a parquet file, or of some row groups, whose first row has a number."""
    for number, row in parquet_rows(source, text_key.split(".")[0], groups, first):
        try:
            yield number, Bad(row) if isinstance(row, str) else _row(row, text_key)
        except ValueError as error:
            yield number, Bad(str(error))


def _spool(file: Readable, unpacked: BinaryIO) -> None:
    size = 0
    for block in read_blocks(file):
        size += unpacked.write(block)
        if size > MAX_SPOOLED_BYTES:
            raise TornFile(f"larger than {MAX_SPOOLED_BYTES >> 30} GiB: unpack it yourself")


READERS: dict[str, Callable[[Readable, str], Found]] = {
    **dict.fromkeys((".txt", ".text", ".md", ".markdown", ".rst", ".raw", ".tokens"), read_text),
    **dict.fromkeys((".html", ".htm", ".xhtml"), read_html),
    **dict.fromkeys((".jsonl", ".ndjson"), _read_jsonl),
    **dict.fromkeys((".csv", ".tsv"), _read_csv),
    ".json": _read_json,
    ".parquet": _read_parquet,
}
