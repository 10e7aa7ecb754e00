"""Rows of files, as they were written: json, jsonl, csv and parquet, each also .gz or .zst.

Nothing is raised for a row or a file that cannot be read: it becomes a `BadLine`, and what is whole
comes out. Lines, csv and parquet are read in bounded memory, a JSON list up to MAX_FILE_BYTES.
Knows nothing about what a row holds.
"""

import csv
import errno
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import orjson

from utils.reading.documents import BadLine, Row, Rows, kind_of
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
MAX_SPOOLED_BYTES = 1 << 31
"""Largest packed parquet file (2 GiB): it is unpacked into a temporary file."""
COMPRESSED = (".gz", ".zst")


Lines = Iterator[tuple[int, bytes] | BadLine]


def read_rows(path: Path) -> Rows:
    """Yield the rows of a file in order; what is no csv or parquet is taken for JSON.

    JSON is a list of objects, one object, `{"data": [...]}`, or an object a line.

    Raises:
        OSError: the disk is full (a packed parquet file is unpacked first).
    """
    name = str(path)
    reader = ROW_READERS.get(file_kind(path), _json_file)
    if reader is _jsonl_file:
        reader = _list_or_lines
    return until_torn(reader(path, name, None), name)


def file_kind(file: Readable) -> str:
    """Return the suffix that tells the format: `.jsonl` for `a.jsonl.gz`."""
    name = file.name.lower()
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    return Path(name).suffix


def until_torn(rows: Rows, name: str) -> Rows:
    """Yield rows until the file ends; where it cannot be read further, a bad line says why."""
    last = 0
    try:
        for row in rows:
            last = row.line
            yield row
    except (TornFile, OSError) as error:
        yield torn_line(error, name, last)


def torn_line(error: TornFile | OSError, name: str, line: int) -> BadLine:
    """Return why a file gives no more; a full disk (of the temporary file) is not its fault."""
    if isinstance(error, TornFile):
        return BadLine(name, line, str(error))
    if error.errno == errno.ENOSPC:
        raise error
    reason = " ".join(str(error.strerror or error).split())[:120]
    return BadLine(name, line, f"cannot be read: {reason}")


def numbered_lines(blocks: Iterator[bytes], name: str, first: int = 1) -> Lines:
    """Yield lines with their numbers from `first` on; one that is too long is bad."""
    for number, line in read_lines(blocks, first):
        if isinstance(line, int):
            yield BadLine(name, number, f"line of {line / 2**20:.0f} MiB (16 MiB at most)", line)
        else:
            yield number, line


def json_lines(lines: Lines, name: str) -> Rows:
    """Yield the rows of lines of JSON objects; blank ones are none."""
    for line in lines:
        if isinstance(line, BadLine):
            yield line
        elif line[1].strip():
            yield _parsed_row(name, *line)


def _parsed_row(name: str, number: int, line: bytes) -> Row | BadLine:
    try:
        return _row(name, number, _parsed(line), len(line))
    except (ValueError, RecursionError) as error:
        return BadLine(name, number, _reason(error), len(line))


def _row(name: str, number: int, value: object, num_bytes: int) -> Row | BadLine:
    if isinstance(value, dict):
        return Row(name, number, value, num_bytes)
    return BadLine(name, number, f"not an object but {kind_of(value)}", num_bytes)


def _parsed(line: bytes) -> object:
    """Return the value of a JSON line; the standard parser takes NaN and says what is wrong."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(line.decode("utf-8"))


def _reason(error: ValueError | RecursionError) -> str:
    """Return what is wrong with JSON, in one line."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 (byte {error.start})"
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON ({error.msg}, column {error.colno})"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error).split(";")[0]


def _jsonl_file(file: Readable, name: str, column: str | None) -> Rows:
    return json_lines(numbered_lines(text_blocks(file, rows=True), name), name)


def _list_or_lines(file: Readable, name: str, column: str | None) -> Rows:
    """Read lines of objects, or a list that is called .jsonl."""
    is_list = next(_filled_lines(file), b"").lstrip().startswith(b"[")
    yield from (_json_file if is_list else _jsonl_file)(file, name, column)


def _json_file(file: Readable, name: str, column: str | None) -> Rows:
    """Read one list of rows, one object, or - as some call such files .json - lines of objects."""
    if _begins_with_rows(file):
        yield from _jsonl_file(file, name, column)
        return
    data = whole_file(file, name, MAX_FILE_BYTES, rows=True)
    if isinstance(data, BadLine):
        yield data
        return
    try:
        rows = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        yield from _broken_json(file, name, data, error)
        return
    if isinstance(rows, dict) and isinstance(rows.get("data"), list):
        rows = rows["data"]
    for number, row in enumerate(rows if isinstance(rows, list) else [rows], start=1):
        yield _row(name, number, row, _num_bytes(row))


def _broken_json(
    file: Readable, name: str, data: bytes, error: ValueError | RecursionError
) -> Rows:
    """Read what is no JSON as lines of objects; a list with a mistake is bad as a whole."""
    is_decoded = isinstance(error, json.JSONDecodeError)
    is_lines = is_decoded and error.msg == "Extra data"  # a line with a list, then others
    if is_lines or not data.lstrip().startswith(b"["):
        yield from _jsonl_file(file, name, None)
    else:
        yield BadLine(name, error.lineno if is_decoded else 0, _reason(error), len(data))


def _filled_lines(file: Readable) -> Iterator[bytes]:
    """Yield the lines that are not blank, nothing of one that is too long."""
    for line in numbered_lines(text_blocks(file, rows=True), ""):
        if isinstance(line, BadLine):
            yield b""
        elif line[1].strip():
            yield line[1]


def _begins_with_rows(file: Readable) -> bool:
    """Return whether the first line is an object and the second looks like one (as in C4)."""
    lines = _filled_lines(file)
    first, second = next(lines, b""), next(lines, b"")
    if not second.startswith(b"{"):
        return False
    try:
        return isinstance(_parsed(first), dict)
    except (ValueError, RecursionError):
        return False


def whole_file(file: Readable, name: str, max_bytes: int, *, rows: bool = False) -> bytes | BadLine:
    """Return the content of a file as UTF-8, or a bad line where it has more than `max_bytes`."""
    data = bytearray()
    for block in text_blocks(file, rows=rows):
        data += block
        if len(data) > max_bytes:
            reason = f"larger than {max_bytes >> 20} MiB: convert it to .jsonl"
            return BadLine(name, 0, reason, len(data))
    return bytes(data)


def _num_bytes(value: object) -> int:
    try:
        return len(json.dumps(value))
    except RecursionError:  # the parser goes a few levels deeper
        return 0


def _csv_file(file: Readable, name: str, column: str | None) -> Rows:
    delimiter = "\t" if file_kind(file) == ".tsv" else ","
    csv.field_size_limit(1 << 24)
    bad: list[BadLine] = []
    rows = csv.DictReader(_csv_lines(file, name, bad), delimiter=delimiter)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            break
        except csv.Error as error:
            yield BadLine(name, rows.line_num, str(error))
        else:
            yield Row(name, rows.line_num, row)
    yield from bad


def _csv_lines(file: Readable, name: str, bad: list[BadLine]) -> Iterator[str]:
    for line in numbered_lines(text_blocks(file), name):
        if isinstance(line, BadLine):
            bad.append(line)
        else:
            yield decode_line(line[1]) + "\n"


def _parquet_file(file: Readable, name: str, column: str | None) -> Rows:
    if isinstance(file, Path) and file.suffix.lower() not in COMPRESSED:
        yield from parquet_rows(str(file), name, column)
        return
    with tempfile.TemporaryFile() as unpacked:
        _spool(file, unpacked)
        yield from parquet_rows(unpacked, name, column)


def _spool(file: Readable, unpacked: BinaryIO) -> None:
    size = 0
    for block in read_blocks(file):
        size += unpacked.write(block)
        if size > MAX_SPOOLED_BYTES:
            raise TornFile(f"larger than {MAX_SPOOLED_BYTES >> 30} GiB: unpack it yourself")


RowReader = Callable[[Readable, str, str | None], Rows]
"""(file, its name in messages, the column that is needed or None for all) to its rows."""
ROW_READERS: dict[str, RowReader] = {
    **dict.fromkeys((".jsonl", ".ndjson"), _jsonl_file),
    **dict.fromkeys((".csv", ".tsv"), _csv_file),
    ".json": _json_file,
    ".parquet": _parquet_file,
}
