"""Thousands of files of every format, damaged in every way: all that is whole is read."""

import gzip
import io
import json
import random
import zipfile
from collections import Counter

import pyarrow
import pyarrow.parquet
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.utils.data.books import WORDS, book_files, write_book
from utils.reading import streams
from utils.reading.documents import BadLine, Document
from utils.reading.readers import read_file, skipped_members

LIMIT = 4096
"""Longest line in these tests (16 MiB otherwise)."""


def _parquet(texts):
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"text": text} for text in texts]), out)
    return out.getvalue()


FORMATS = {
    ".jsonl": lambda texts: "".join(json.dumps({"text": text}) + "\n" for text in texts).encode(),
    ".json": lambda texts: json.dumps([{"text": text} for text in texts]).encode(),
    ".csv": lambda texts: "\n".join(["text", *texts, ""]).encode(),
    ".txt": lambda texts: "\n<|endoftext|>\n".join([*texts, ""]).encode(),
    ".html": lambda texts: ("<body>" + "".join(f"<p>{text}</p>\n" for text in texts)).encode(),
    ".parquet": _parquet,
}


def _zip(data, name):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return out.getvalue()


PACKERS = {
    "": lambda data, name: data,
    ".gz": lambda data, name: gzip.compress(data),
    ".zst": lambda data, name: zstandard.ZstdCompressor(write_checksum=True).compress(data),
    ".zip": _zip,
}


def _cut(data, chance):
    return data[: chance.randrange(max(len(data), 1))]


def _flip(data, chance):
    data = bytearray(data)
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def _line(line):
    """Return a mutation that puts a line between two others."""

    def insert(data, chance):
        lines = data.split(b"\n")
        lines.insert(chance.randrange(1, len(lines)) if len(lines) > 1 else 1, line)
        return b"\n".join(lines)

    return insert


INSERTED = {
    "invalid UTF-8": _line(b'{"text": "caf\xe9 \xff\xfe"}'),
    "NULs": _line(bytes(40)),
    "torn JSON": _line(b'{"text": "the machine was switched o'),
    "NaN": _line(b'{"text": NaN}'),
    "deep nesting": _line(b"[" * 4000),
    "wrong type": _line(b'{"text": 17}'),
    "no object": _line(b"[1, 2]"),
    "other keys": _line(b'{"body": "words"}'),
    "line over the limit": _line(b'{"text": "' + b"x" * LIMIT + b'"}'),
    "control characters": _line(b"\x07\x1b[0m"),
    "broken markup": _line(b"<![foo[ <a '"),
}
BYTES = {
    "nothing": lambda data, chance: data,
    "cut": _cut,
    "flipped bit": _flip,
    "byte order mark": lambda data, chance: b"\xef\xbb\xbf" + data,
    "UTF-16": lambda data, chance: data.decode("latin-1").encode("utf-16"),
    "UTF-32": lambda data, chance: data.decode("latin-1").encode("utf-32"),
    "garbage at the end": lambda data, chance: data + chance.randbytes(50),
    "NULs at the beginning": lambda data, chance: bytes(chance.randrange(1, 9000)) + data,
    "random bytes": lambda data, chance: chance.randbytes(len(data)),
    "empty": lambda data, chance: b"",
    "bomb": lambda data, chance: data + b"a" * (4 << 20),
}
LOSSLESS = {"nothing", "byte order mark", "UTF-16", "UTF-32", *INSERTED}
"""What leaves every line of JSON and of text whole."""
OUTSIDE = {"none", "cut", "flipped bit", "garbage at the end", "empty"}

MANY = settings(
    max_examples=2200,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def _read(path, name):
    """Return the texts of a file and its bad lines, each named with a reason of one line."""
    texts, bad = [], []
    for record in read_file(path, name, "test", "text"):
        if isinstance(record, BadLine):
            assert record.file.startswith(name) and record.line >= 0
            assert record.reason and "\n" not in record.reason and len(record.reason) < 300
            bad.append(record)
        else:
            assert isinstance(record, Document) and record.id.startswith(name)
            texts.append(record.text)
    return texts, bad


def _texts(chance):
    return [
        " ".join([f"text{n}", *chance.choices(WORDS, k=12)]) for n in range(chance.randrange(1, 9))
    ]


def test_every_mutation_of_every_format_keeps_what_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "MAX_LINE_BYTES", LIMIT)
    seen = Counter()

    @MANY
    @given(
        st.sampled_from(sorted(FORMATS)), st.sampled_from(sorted(PACKERS)),
        st.sampled_from(sorted(INSERTED | BYTES)), st.sampled_from(sorted(OUTSIDE)),
        st.integers(0, 2**32),
    )  # fmt: skip
    def check(kind, packer, inside, outside, seed):
        chance = random.Random(seed)
        texts = _texts(chance)
        data = (INSERTED | BYTES)[inside](FORMATS[kind](texts), chance)
        packed = PACKERS[packer](data, f"rows{kind}")
        outside = outside if packer else "none"
        if outside != "none":
            packed = BYTES[outside](packed, chance)
        path = tmp_path / (f"a{kind}{packer}" if packer != ".zip" else "a.zip")
        path.write_bytes(packed)
        found, bad = _read(path, path.name)
        seen.update(["files", kind, f"packed {packer}", inside, f"outside {outside}"])
        if outside == "none" and inside in LOSSLESS and kind in (".jsonl", ".txt"):
            everything = "\n".join(found)
            is_binary = kind == ".txt" and [one.reason for one in bad] == ["binary data, no text"]
            assert all(text in everything for text in texts) or is_binary
            if kind == ".jsonl" and inside in INSERTED:
                assert len(bad) == 1 and bad[0].line
        if outside == "none" and inside == "nothing":
            assert (len(found), bad) == (1 if kind == ".html" else len(texts), [])
        if outside in ("cut", "flipped bit") and inside == "nothing" and packed:
            lost = not all(text in "\n".join(found) for text in texts)
            assert bad or not lost or skipped_members(path, path.name)

    check()
    assert seen["files"] >= 2000
    every = [*FORMATS, *INSERTED, *BYTES, *(f"packed {one}" for one in PACKERS),
             *(f"outside {one}" for one in OUTSIDE)]  # fmt: skip
    assert min(seen[one] for one in every) >= 30, seen


def _drop(name):
    return lambda files, chance: {key: data for key, data in files.items() if key != name}


def _other(name, data):
    return lambda files, chance: files | {name: data}


BOOK_MUTATIONS = {
    # name: (change of the files, whether the other chapters are still to be had)
    "nothing": (lambda files, chance: files, True),
    "no package": (_drop("OEBPS/content.opf"), False),
    "no container": (_drop("META-INF/container.xml"), False),
    "no chapter": (_drop("OEBPS/chapter 1.xhtml"), True),
    "picture for a chapter": (_other("OEBPS/chapter 1.xhtml", bytes(range(256)) * 20), True),
    "bomb for a chapter": (_other("OEBPS/chapter 1.xhtml", b"<p>" * 100_000), True),
    "broken markup": (_other("OEBPS/chapter 1.xhtml", b"<![x[ <a '"), True),
    "UTF-16 chapter": (_other("OEBPS/chapter 1.xhtml", "<p>\u4e2d".encode("utf-16")), True),
    "empty chapter": (_other("OEBPS/chapter 1.xhtml", b""), True),
    "torn package": (lambda files, chance: files | {
        "OEBPS/content.opf": _cut(files["OEBPS/content.opf"], chance)}, False),
    "random package": (lambda files, chance: files | {
        "OEBPS/content.opf": chance.randbytes(500)}, False),
}  # fmt: skip


def _damaged_archive(data, outside, chance):
    if outside == "cut":
        return _cut(data, chance)
    for _ in range({"flipped bit": 1, "flipped bytes": 20}.get(outside, 0)):
        data = _flip(data, chance)
    entry = data.rfind(b"OEBPS/chapter 1")
    if outside == "encrypted" and entry >= 0:
        data = bytearray(data)
        data[entry - 38] |= 1  # flags in the table of contents
    return data


def test_every_mutation_of_books_keeps_their_other_chapters(tmp_path):
    seen = Counter()
    path = tmp_path / "a.epub"

    @settings(MANY, max_examples=500)
    @given(
        st.sampled_from(sorted(BOOK_MUTATIONS)),
        st.sampled_from(["none", "cut", "flipped bit", "encrypted", "flipped bytes"]),
        st.integers(0, 2**32),
    )
    def check(inside, outside, seed):
        chance = random.Random(seed)
        texts = ["replaced", *_texts(chance)]  # the first is in "chapter N", so that N = 1 is last
        files = book_files(texts[::-1])
        change, is_readable = BOOK_MUTATIONS[inside]
        write_book(path, change(files, chance))
        path.write_bytes(_damaged_archive(path.read_bytes(), outside, chance))
        found, bad = _read(path, "a.epub")
        seen.update(["files", inside, f"outside {outside}"])
        everything = "\n".join(found)
        if outside in ("none", "encrypted"):
            assert all(text in everything for text in texts[1:]) is is_readable
            assert is_readable or (len(bad) == 1 and bad[0].line == 0)
        if outside == "encrypted" and inside == "nothing":
            assert [(one.file, one.reason) for one in bad] == [
                ("a.epub/OEBPS/chapter 1.xhtml", "encrypted")
            ]
        if outside == "cut":
            assert found == [] and "damaged zip archive" in bad[0].reason
        if outside == "flipped bit" and inside == "nothing":
            assert bad or all(text in everything for text in texts)

    check()
    assert seen["files"] >= 400
    assert min(seen[one] for one in BOOK_MUTATIONS) >= 10, seen
