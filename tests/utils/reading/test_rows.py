"""Rows come out of every format as they were written; what is broken is named and costs no more."""

import datetime
import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from utils.reading import rows as module
from utils.reading.documents import BadLine, Row
from utils.reading.rows import read_rows

ROWS = [{"id": str(number), "turns": [{"role": "user"}], "n": number} for number in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
FLAT = [{"question": 'Say "a, b"\nthen c', "answer": "7"}, {"question": "Q", "answer": ""}]
CSV = 'question,answer\r\n"Say ""a, b""\nthen c",7\r\nQ,\r\n'


def _parquet(rows):
    out = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue().to_pybytes()


FILES = {
    "a.jsonl": (LINES, ROWS),
    "list.jsonl": (json.dumps(ROWS, indent=1).encode(), ROWS),
    "a.json": (json.dumps(ROWS).encode(), ROWS),
    "pretty.json": (json.dumps(ROWS, indent=1).encode(), ROWS),
    "inside.json": (json.dumps({"data": ROWS}).encode(), ROWS),
    "lines.json": (LINES, ROWS),
    "one.json": (json.dumps(ROWS[0], indent=1).encode(), ROWS[:1]),
    "no suffix": (LINES, ROWS),
    "mark.json": (b"\xef\xbb\xbf" + json.dumps(ROWS).encode(), ROWS),
    "a.csv": (CSV.encode(), FLAT),
    "a.tsv": (b"question\tanswer\nQ, and\tA\n", [{"question": "Q, and", "answer": "A"}]),
    "a.parquet": (_parquet(ROWS), ROWS),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".zst", zstandard.compress)]
)
def test_the_rows_of_every_format_are_read_packed_or_not(tmp_path, name, suffix, pack):
    data, wanted = FILES[name]
    path = tmp_path / f"{name}{suffix}"
    path.write_bytes(pack(data))
    rows = list(read_rows(path))
    assert [row.value for row in rows if isinstance(row, Row)] == wanted
    assert len(rows) == len(wanted)


def test_a_row_says_where_it_stands_and_how_long_it_is(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\n{"a": 1}\n\n{"b": 22}\n')
    assert [(row.place, row.num_bytes) for row in read_rows(path)] == [
        (f"{path}:2", 8), (f"{path}:4", 9)
    ]  # fmt: skip


BROKEN = {
    # name: (bytes, rows that are whole, line of the bad one, its reason)
    "line.jsonl": (b'{"a": 1}\n{broken\n{"b": 2}\n', 2, 2, "not valid JSON"),
    "utf8.jsonl": (b'{"a": 1}\n{"b": "\xff"}\n', 1, 2, "not UTF-8 (byte 7)"),
    "value.jsonl": (b'{"a": 1}\n3\n', 1, 2, "not an object but a number"),
    "value.json": (b'[{"a": 1}, "text"]', 1, 2, "not an object but a str"),
    "comma.json": (b'[\n{"a": 1},\n{"b": 2}\n{"c": 3}\n]', 0, 4, "Expecting ',' delimiter, column"),
    "end.json": (b"[{", 0, 1, "property name enclosed in double quotes, column 3"),
    "utf8.json": (b'[\n{"a": "\xff"}\n]', 0, 0, "not UTF-8 (byte 9)"),
    "deep.json": (b"[" * 100_000, 0, 0, "nested too deeply"),
    "lists.json": (b'[1, 2]\n{"a": 1}\n', 1, 1, "not an object but a list"),
    "long.jsonl": (b'{"a": "' + b"x" * (17 << 20) + b'"}\n{"b": 1}\n', 1, 1, "line of 17 MiB"),
    "long.csv": (b"a,b\n1,2\n" + b"x" * (17 << 20) + b"\n", 1, 3, "line of 17 MiB"),
    "none.parquet": (b"PAR1 no parquet PAR1", 0, 0, "damaged parquet data"),
    "torn.jsonl.gz": (gzip.compress(LINES)[:-8], 3, 3, "ends too early"),
    "binary.csv": (bytes(range(256)) * 100, 0, 0, "binary data"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_row_is_named_and_the_rest_is_kept(tmp_path, name):
    data, wanted, line, reason = BROKEN[name]
    (tmp_path / name).write_bytes(data)
    rows = list(read_rows(tmp_path / name))
    (bad,) = [row for row in rows if isinstance(row, BadLine)]
    assert len(rows) == wanted + 1
    assert bad.file == str(tmp_path / name) and bad.line == line
    assert reason in bad.reason and "\n" not in bad.reason


def test_a_date_that_python_does_not_know_ends_a_table_without_an_error(tmp_path):
    path = tmp_path / "dates.parquet"
    days = pyarrow.array([0, 10**8], pyarrow.int32()).cast(pyarrow.date32())
    pyarrow.parquet.write_table(pyarrow.table({"day": days.slice(0, 1)}), path)
    assert [row.value for row in read_rows(path)] == [{"day": datetime.date(1970, 1, 1)}]
    pyarrow.parquet.write_table(pyarrow.table({"day": days}), path)
    assert "damaged parquet data" in next(read_rows(path)).reason


def test_a_missing_file_is_one_bad_line(tmp_path):
    (bad,) = read_rows(tmp_path / "rows.jsonl")
    assert (bad.line, bad.reason) == (0, "cannot be read: No such file or directory")


def test_lines_are_not_held_as_a_whole_and_a_list_has_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 1 << 16)
    row = json.dumps({"text": "word " * 100}) + "\n"
    for name, data in (("a.jsonl", row * 1000), ("a.json", row * 1000)):
        (tmp_path / name).write_text(data)
        assert sum(isinstance(row, Row) for row in read_rows(tmp_path / name)) == 1000
    (tmp_path / "b.json").write_text(f"[{','.join([row] * 1000)}]")
    (bad,) = read_rows(tmp_path / "b.json")
    assert bad.reason == "larger than 0 MiB: convert it to .jsonl"
