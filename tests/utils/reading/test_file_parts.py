"""Pieces of files are the whole file, cut at line ends, whatever is in it."""

import codecs
import gzip
import json
import random
import zipfile

import pyarrow
import pyarrow.parquet
import pytest
import xxhash

from tests.utils.data.books import book_files, write_book
from utils.reading import file_parts
from utils.reading.documents import BadLine, Document
from utils.reading.file_parts import part_blocks, split_file
from utils.reading.readers import read_file, read_part
from utils.reading.rows import file_kind
from utils.reading.streams import BLOCK_BYTES


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(file_parts, "PART_BYTES", 100_000)


def _rows(count, mark=b""):
    lines = [
        json.dumps({"text": f"row {number} " + "x" * (number % 900)}) for number in range(count)
    ]
    return mark + "\n".join(lines).encode()


def _parts(path):
    return split_file(path, path.name, file_kind(path))


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n\n"])
def test_lines_of_pieces_are_those_of_the_file(tmp_path, mark, end):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(_rows(2000, mark) + end + b'{"text": broken\n' * 2)
    found = _parts(path)
    assert len(found) > 5 and not any(part.is_long for part in found)
    assert b"".join(b"".join(part_blocks(part)) for part in found) == (
        path.read_bytes().removeprefix(codecs.BOM_UTF8)
    )
    records = [record for part in found for record in read_part(part, "source", "text")]
    assert records == list(read_file(path, path.name, "source", "text"))


def test_a_line_longer_than_a_piece_stays_whole(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(_rows(900) + b"\n" + json.dumps({"text": "y" * 700_000}).encode() + b"\n")
    found = _parts(path)
    assert found[-1].end == path.stat().st_size
    records = [record for part in found for record in read_part(part, "source", "text")]
    assert len(records) == 901 and len(records[-1].text) == 700_000


@pytest.mark.parametrize(
    "data",
    [
        _rows(900).decode().encode("utf-16"),
        gzip.compress(_rows(900)),
        b"\x00\x01\x02" * BLOCK_BYTES,
    ],
    ids=["utf-16", "gzip", "binary"],
)
def test_other_encodings_are_read_as_a_whole(tmp_path, data):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    (part,) = _parts(path)
    assert part.end is None and part.is_long
    assert list(read_part(part, "source", "text")) == list(
        read_file(path, path.name, "source", "text")
    )


def test_a_small_packed_file_that_is_long_inside_is_long(tmp_path):
    bomb = tmp_path / "bomb.txt.gz"
    bomb.write_bytes(gzip.compress(b"a" * 10_000_000))
    small = tmp_path / "small.txt.gz"
    small.write_bytes(gzip.compress(b"a" * 1000))
    torn = tmp_path / "torn.txt.gz"
    torn.write_bytes(small.read_bytes()[:-6])
    assert [_parts(path)[0].is_long for path in (bomb, small, torn)] == [True, False, False]


def test_archives_are_as_long_as_what_is_read_of_them(tmp_path):
    def pack(name, members):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for inner, data in members.items():
                archive.writestr(inner, data)
        return _parts(tmp_path / name)[0]

    assert pack("small.zip", {"a.txt": b"a" * 1000, "b.txt": b"b" * 500}).size == 1500
    assert pack("long.zip", {f"{number}.txt": b"a" * 9000 for number in range(20)}).is_long
    assert pack("bomb.zip", {"a.jsonl.gz": gzip.compress(b"a" * 10_000_000)}).is_long
    picture = {"OEBPS/cover.jpg": random.randbytes(500_000)}
    book = write_book(tmp_path / "small.epub", book_files(["Text."]) | picture)
    assert book.stat().st_size > 500_000 and not _parts(book)[0].is_long
    book = write_book(tmp_path / "long.epub", book_files(["word " * 9000] * 9))
    assert book.stat().st_size < 50_000 and _parts(book)[0].is_long
    for name in ("torn.zip", "torn.epub"):
        (tmp_path / name).write_bytes(b"PK\x03\x04")
        assert not _parts(tmp_path / name)[0].is_long


def test_the_digest_is_that_of_the_bytes(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(_rows(2000))
    before = [part.digest for part in _parts(path)]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    after = [part.digest for part in _parts(path)]
    assert sum(one != two for one, two in zip(before, after, strict=True)) == 1


def test_a_file_that_cannot_be_read_says_so(tmp_path):
    (part,) = split_file(tmp_path / "gone.txt", "gone.txt", ".txt")
    assert part.digest.startswith("unreadable: No such file")


def _parquet(path, rows, group):
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, path, row_group_size=group)


@pytest.mark.parametrize("group", [1, 70, 10_000])
def test_rows_of_parquet_pieces_are_those_of_the_file(tmp_path, group):
    path = tmp_path / "rows.parquet"
    _parquet(path, [{"text": f"row {n} " + "x" * (n % 900), "n": n} for n in range(2000)], group)
    found = _parts(path)
    assert [part.is_long for part in found] == ([True] if group == 10_000 else [False] * len(found))
    assert len(found) == 1 if group == 10_000 else len(found) > 4
    assert len({part.digest for part in found}) == len(found)
    assert {part.file_digest for part in found} == {xxhash.xxh3_128_hexdigest(path.read_bytes())}
    records = [record for part in found for record in read_part(part, "source", "text")]
    assert records == list(read_file(path, path.name, "source", "text"))
    assert [record.id for record in records[-2:]] == ["rows.parquet:1999", "rows.parquet:2000"]
    (bad,) = [record for part in found for record in read_part(part, "source", "body")]
    assert bad.reason == "no column 'body' (columns: text, n)"


def test_parquet_without_rows_and_without_sense_is_one_piece(tmp_path):
    empty, damaged = tmp_path / "empty.parquet", tmp_path / "damaged.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array([], "string")}), empty)
    damaged.write_bytes(b"PAR1" + b"x" * 9000)
    for path, count in ((empty, 0), (damaged, 1)):
        (part,) = _parts(path)
        assert len(list(read_part(part, "source", "text"))) == count


def test_of_a_parquet_file_with_a_damaged_group_the_others_are_read(tmp_path):
    path = tmp_path / "rows.parquet"
    _parquet(path, [{"text": f"row {n} " + "x" * 900} for n in range(1000)], 200)
    data = bytearray(path.read_bytes())
    middle = pyarrow.parquet.read_metadata(path).row_group(2).column(0).data_page_offset
    data[middle : middle + 60] = b"\xff" * 60
    path.write_bytes(data)
    records = [record for part in _parts(path) for record in read_part(part, "source", "text")]
    good = [record.id for record in records if isinstance(record, Document)]
    assert len(good) >= 600 and good[-1] == "rows.parquet:1000"
    assert [record.reason[:20] for record in records if isinstance(record, BadLine)] == [
        "damaged parquet data"
    ]


def test_the_digest_of_a_cut_file_is_that_of_all_its_bytes(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(_rows(2000))
    found = _parts(path)
    assert len(found) > 5
    assert {part.file_digest for part in found} == {xxhash.xxh3_128_hexdigest(path.read_bytes())}
