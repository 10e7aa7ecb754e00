"""Every format gives its documents; every malformed line is named and costs nothing else."""

import errno
import gzip
import json
import random
import zipfile

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from utils.reading import formats, rows
from utils.reading.documents import BadLine, Document
from utils.reading.readers import is_supported, read_file, skipped_members
from utils.reading.rows import file_kind

GOOD = [
    json.dumps({"text": f"good document number {n} with some text", "id": str(n)})
    for n in range(20)
]
HEAD, TAIL = GOOD[:10], GOOD[10:]


def _lines(rows):
    return ("\n".join(rows) + "\n").encode()


def _around(line):
    return _lines(HEAD) + line + b"\n" + _lines(TAIL)


GZIPPED = gzip.compress(_lines(GOOD * 500))
MALFORMED = {
    # name: (bytes, documents, place of the bad line, part of the reason)
    "ok.jsonl": (_lines(GOOD), 20, None, ""),
    "badutf8.jsonl": (_around(b'{"text": "caf\xe9 \xff\xfe bad", "id": "x"}'), 20, 11, "not UTF-8"),
    "brokenjson.jsonl": (_around(b'{"text": "unterminated'), 20, 11, "not valid JSON"),
    "torn_last.jsonl": (_lines(GOOD) + b'{"text": "torn last li', 20, 21, "not valid JSON"),
    "nul.jsonl": (_around(b"\0\0\0\0"), 20, 11, "not valid JSON"),
    "nulhead.jsonl": (bytes(600_000) + b"\n" + _lines(GOOD), 20, 1, "not valid JSON"),
    "nulhead.json": (bytes(5000) + b"\n" + _lines(GOOD), 20, 1, "not valid JSON"),
    "nulintext.jsonl": (_around(b'{"text": "a\\u0000b", "id":"n"}'), 21, None, ""),
    "lonesurrogate.jsonl": (_around(b'{"text": "a\\ud800b", "id":"n"}'), 21, None, ""),
    "wrongtype.jsonl": (_around(b'{"text": 5, "id":"n"}'), 20, 11, "not text but a number"),
    "nulltext.jsonl": (_around(b'{"text": null, "id":"n"}'), 20, 11, "not text but null"),
    "notobject.jsonl": (_around(b"[1,2,3]"), 20, 11, "not an object but a list"),
    "missingkey.jsonl": (_around(b'{"body": "x"}'), 20, 11, "no key 'text' (keys: body)"),
    "nan.jsonl": (_around(b'{"text": "x", "score": NaN}'), 21, None, ""),
    "deep.jsonl": (
        _around(b'{"text": ' + b"[" * 100000 + b"]" * 100000 + b"}"), 20, 11, "nested too deeply",
    ),
    "bom.jsonl": (b"\xef\xbb\xbf" + _lines(GOOD), 20, None, ""),
    "crlf.jsonl": (_lines(GOOD).replace(b"\n", b"\r\n"), 20, None, ""),
    "empty.jsonl": (b"", 0, None, ""),
    "utf16.jsonl": (_lines(GOOD).decode().encode("utf-16"), 20, None, ""),
    "hugeline.jsonl": (_around(b'{"text": "' + b"a" * (17 << 20) + b'"}'), 20, 11, "of 17 MiB"),
    "bigint.jsonl": (_around(b'{"text":"x","n":' + b"9" * 5000 + b"}"), 20, 11, "4300 digits"),
    "trunc.jsonl.gz": (GZIPPED[: len(GZIPPED) // 2], None, None, "ends too early"),
    "badcrc.jsonl.gz": (GZIPPED[:-8] + b"\0" * 8, 10_000, 10_000, "damaged gzip data"),
    "notgz.jsonl.gz": (_lines(GOOD), 20, None, ""),
    "trailing.jsonl.gz": (gzip.compress(_lines(GOOD)) + b"garbage!", 20, 20, "damaged gzip data"),
    "bomb.jsonl.gz": (
        gzip.compress(b'{"text":"' + b"a" * (40 << 20) + b'"}\n', 9), 0, 1, "line of 40 MiB",
    ),
}  # fmt: skip


def _read(path, text_key="text"):
    records = list(read_file(path, path.name, "src", text_key))
    documents = [record for record in records if isinstance(record, Document)]
    bad = [record for record in records if isinstance(record, BadLine)]
    assert len(documents) + len(bad) == len(records)
    return documents, bad


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_loses_its_bad_line_only(tmp_path, name):
    data, documents, place, reason = MALFORMED[name]
    (tmp_path / name).write_bytes(data)
    found, bad = _read(tmp_path / name)
    if documents is None:  # a cut in the middle: what came before it
        assert 3000 < len(found) < 8000
    else:
        assert len(found) == documents
    assert len(bad) == (1 if reason else 0)
    if reason:
        assert bad[0].file == name
        assert reason in bad[0].reason
        assert "\n" not in bad[0].reason
    if place:
        assert bad[0].line == place


def test_the_same_rows_come_from_every_format(tmp_path):
    rows = [{"id": str(n), "text": f'Row {n}, with "quotes"\nand two lines'} for n in range(300)]
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    csv = "id,text\r\n" + "".join(
        f'{row["id"]},"{row["text"].replace(chr(34), chr(34) * 2)}"\r\n' for row in rows
    )
    contents = {
        "a.jsonl": _lines(json.dumps(row) for row in rows),
        "a.json": json.dumps(rows).encode(),
        "b.json": json.dumps({"data": rows}).encode(),
        "c.json": _lines(json.dumps(row) for row in rows),
        "a.csv": csv.encode(),
        "a.parquet": (tmp_path / "a.parquet").read_bytes(),
    }
    wanted = [(row["id"], row["text"]) for row in rows]
    for name, data in contents.items():
        for suffix, pack in (("", bytes), (".gz", gzip.compress), (".zst", zstandard.compress)):
            path = tmp_path / f"{name}{suffix}"
            path.write_bytes(pack(data))
            documents, bad = _read(path)
            assert [(document.id, document.text) for document in documents] == wanted, path.name
            assert bad == []


def test_text_files_are_one_document_each_unless_they_say_otherwise(tmp_path):
    path = tmp_path / "a.md"
    path.write_text("# Title\n\nbody\n")
    documents, _ = _read(path)
    assert [(document.id, document.text) for document in documents] == [("a.md", "# Title\n\nbody")]
    path.write_text("one\nmore\n<|endoftext|>\ntwo\n<|endoftext|>\n")
    assert [document.text for document in _read(path)[0]] == ["one\nmore", "two"]


def test_a_long_text_file_is_read_in_parts_that_add_up(tmp_path):
    path = tmp_path / "long.txt"
    text = "".join(f"Paragraph {n} " + "word " * 50 + "\n\n" for n in range(12_000))
    path.write_text(text)
    documents, _ = _read(path)
    assert len(documents) == 4
    assert documents[0].id == "long.txt:1"
    assert all(len(document.text) < 1_001_000 for document in documents)
    assert "".join("".join(document.text for document in documents).split()) == "".join(
        text.split()
    )


def test_wikitext_is_cut_at_its_article_titles(tmp_path):
    path = tmp_path / "wiki.test.raw"
    path.write_text(
        " \n = First = \n \n text of it \n \n = = Section = = \n more \n = Second = \n x \n"
    )
    texts = [document.text for document in _read(path)[0]]
    assert [text.split("=")[1] for text in texts if "=" in text] == [" First ", " Second "]


def test_html_files_give_their_visible_text(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("<html><body><h1>Title</h1><p>Text</p><script>no()</script></body></html>")
    assert [document.text for document in _read(path)[0]] == ["Title\n\nText"]


def test_rows_in_other_layouts_are_reached_by_their_key(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"meta": {"body": "nested"}, "turns": [{"role": "user", "content": "Hi"}, "Hello"]}\n'
    )
    assert _read(path, "meta.body")[0][0].text == "nested"
    assert _read(path, "turns")[0][0].text == "Hi\n\nHello"
    assert _read(path, "text")[1][0].reason == "no key 'text' (keys: meta, turns)"


def test_a_csv_without_the_column_says_which_ones_it_has(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("title,body\nx,y\n")
    assert _read(path)[1][0].reason == "no key 'text' (keys: title, body)"


def test_a_parquet_file_that_is_none_is_one_bad_line(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 this is not parquet PAR1")
    documents, bad = _read(path)
    assert documents == []
    assert "damaged parquet data" in bad[0].reason


def test_a_file_that_cannot_be_opened_is_one_bad_line(tmp_path):
    (tmp_path / "link.txt").symlink_to(tmp_path / "missing")
    assert "No such file" in _read(tmp_path / "link.txt")[1][0].reason


def test_the_format_is_told_by_the_name_without_its_compression(tmp_path):
    assert file_kind(tmp_path / "A.JSONL.gz") == ".jsonl"
    assert is_supported(tmp_path / "a.txt.zst")
    assert is_supported(tmp_path / "a.ZIP") and is_supported(tmp_path / "b.epub")
    assert not is_supported(tmp_path / "a.png")
    assert not is_supported(tmp_path / "a.tar.gz")


def test_lines_of_objects_called_json_are_not_held_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.reading.rows.MAX_FILE_BYTES", 500_000)
    lines = "\n".join(json.dumps({"text": f"page {n} " * 40, "url": "x"}) for n in range(2000))
    path = tmp_path / "c4-train.00000-of-01024.json.gz"
    path.write_bytes(gzip.compress(f"\n{lines}\n".encode()))
    records = list(read_file(path, path.name, "source", "text"))
    assert [record.text for record in records] == [f"page {n} " * 40 for n in range(2000)]
    assert records[0].id == f"{path.name}:2"
    path.write_bytes(gzip.compress(f"[{lines.replace(chr(10), ',' + chr(10))}]".encode()))
    (bad,) = read_file(path, path.name, "source", "text")
    assert bad.reason == "larger than 0 MiB: convert it to .jsonl"


def test_one_object_and_an_object_over_several_lines_are_read(tmp_path):
    path = tmp_path / "one.json"
    for content in ('{"text": "a"}', '{\n"text": "a"\n}\n', '{"text": "a"}\n\n', '[{"text": "a"}]'):
        path.write_text(content)
        assert [record.text for record in read_file(path, "one.json", "s", "text")] == ["a"]


def _zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_files_in_a_zip_are_read_as_those_of_a_folder(tmp_path):
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist([{"text": "from parquet"}]), tmp_path / "t.parquet"
    )
    members = {
        "z.txt": b"plain", "notes/a.md": b"# Notes", "page.html": b"<p>page",
        "rows.jsonl.gz": gzip.compress(_around(b"{broken")), "t.csv": b"text\nfrom csv\n",
        "rows.json": json.dumps([{"text": "from json"}]).encode(),
        "t.parquet": (tmp_path / "t.parquet").read_bytes(),
        "p.parquet.zst": zstandard.compress((tmp_path / "t.parquet").read_bytes()),
        "inner.zip": b"not opened", "book.epub": b"nor this", "photo.jpg": b"x", "README": b"x",
        "bad.parquet": b"no parquet",
    }  # fmt: skip
    path = _zip(tmp_path / "all.zip", members)
    documents, bad = _read(path)
    texts = {document.id: document.text for document in documents if "good" not in document.text}
    assert texts == {
        "all.zip/notes/a.md": "# Notes", "all.zip/p.parquet.zst:1": "from parquet",
        "all.zip/page.html": "page", "all.zip/rows.json:1": "from json",
        "all.zip/t.csv:2": "from csv", "all.zip/t.parquet:1": "from parquet",
        "all.zip/z.txt": "plain",
    }  # fmt: skip
    assert list(texts) == sorted(texts) and len(documents) == len(texts) + 20
    assert [(one.file, one.line) for one in bad] == [
        ("all.zip/bad.parquet", 0), ("all.zip/rows.jsonl.gz", 11)
    ]  # fmt: skip
    assert [(one.file, one.kind) for one in skipped_members(path, "all.zip")] == [
        ("all.zip/README", "no suffix"), ("all.zip/book.epub", ".epub"),
        ("all.zip/inner.zip", ".zip"), ("all.zip/photo.jpg", ".jpg"),
    ]  # fmt: skip


def test_a_damaged_zip_is_one_bad_line_and_no_skipped_files(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(b"PK\x03\x04 not much more")
    assert [(one.line, one.reason) for one in _read(path)[1]] == [
        (0, "damaged zip archive (File is not a zip file)")
    ]
    assert skipped_members(path, "a.zip") == []


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_text_that_ends_too_early_keeps_what_came_before(tmp_path, pack):
    text = "".join(f"line {number} {random.random()}\n" for number in range(50_000))
    path = tmp_path / "a.txt.gz"
    packed = pack(text.encode())
    path.write_bytes(packed[: len(packed) // 2])
    (document,), (bad,) = _read(path)
    assert text.startswith(document.text) and len(document.text) > len(text) // 4
    assert "ends too early" in bad.reason


def test_pages_and_unpacked_tables_have_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "MAX_PAGE_BYTES", 1 << 20)
    monkeypatch.setattr(rows, "MAX_SPOOLED_BYTES", 1 << 20)
    bomb = bytes(64 << 20)
    path = _zip(tmp_path / "a.zip", {"a.html": b"<p>" + b"a" * (64 << 20), "b.parquet": bomb})
    documents, bad = _read(path)
    assert documents == []
    assert ["larger than" in one.reason for one in bad] == [True, True]


def test_a_full_disk_is_no_fault_of_the_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rows, "_spool", full)
    path = tmp_path / "a.parquet.gz"
    path.write_bytes(b"x")
    with pytest.raises(OSError, match="No space left"):
        _read(path)
