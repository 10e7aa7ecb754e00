"""Thousands of damaged files: every good line is kept, every bad one named, nothing raises."""

import gzip
import json
import random
from collections import Counter
from dataclasses import dataclass

import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.stage01 import prepare
from tests.utils.data.books import WORDS
from utils.config.prepare import PrepareConfig
from utils.reading import streams
from utils.reading.documents import BadLine, Document
from utils.reading.readers import read_file

LIMIT = 4096
"""Longest line in these tests (16 MiB otherwise)."""

BAD_LINES = {
    "invalid UTF-8": (b'{"text": "caf\xe9 \xff\xfe"}', "not UTF-8"),
    "cut character": ('{"text": "na\u00efve"}'.encode()[:13], "not UTF-8"),
    "NUL in a text": (b'{"text": "a\x00b"}', "not valid JSON"),
    "only NULs": (b"\x00" * 40, "not valid JSON"),
    "torn object": (b'{"text": "the machine was switched o', "not valid JSON"),
    "two objects": (b'{"text": "a"}{"text": "b"}', "not valid JSON"),
    "no JSON": (b"plain words in the middle", "not valid JSON"),
    "NaN as text": (b'{"text": NaN}', "not text but a number"),
    "infinity as text": (b'{"text": -Infinity}', "not text but a number"),
    "huge number": (b'{"text": ' + b"9" * 3000 + b"}", "not text but a number"),
    "deep nesting": (b"[" * 4000, "nested too deeply"),
    "deep text": (b'{"text": ' + b"[" * 1900 + b"]" * 1900 + b"}", ""),
    "number": (b"17", "not an object"),
    "string": (b'"words"', "not an object"),
    "array": (b"[1, 2]", "not an object"),
    "null": (b"null", "not an object"),
    "null text": (b'{"text": null}', "not text but null"),
    "boolean text": (b'{"text": true}', "not text but a truth value"),
    "object as text": (b'{"text": {"a": 1}}', "not text but a dict"),
    "empty list": (b'{"text": []}', "not text but a list"),
    "other keys": (b'{"body": "words"}', "no key 'text'"),
    "empty object": (b"{}", "no key 'text'"),
    "too long": (b'{"text": "' + b"x" * (LIMIT + 1) + b'"}', "16 MiB at most"),
    "long without sense": (b"\x07" * (3 * LIMIT), "16 MiB at most"),
}
BLANK_LINES = (b"", b"   ", b"\t")

good_texts = st.text(
    st.characters(exclude_categories=["Cs"]), min_size=1, max_size=120
) | st.sampled_from(["word " * 200, "\u2028 and \x85 end no line", "\ufeff inside", "\u0000"])
good_lines = good_texts.map(lambda text: ("good", text))
bad_lines = st.sampled_from(sorted(BAD_LINES)).map(lambda name: ("bad", name))
blank_lines = st.sampled_from(BLANK_LINES).map(lambda line: ("blank", line))
contents = st.lists(good_lines | bad_lines | blank_lines, max_size=30)


@dataclass
class Written:
    """A file of lines and what must be read from it."""

    data: bytes
    texts: list[str]
    bad: dict[int, str]
    """Line and part of the reason."""


def write(content, *, escaped=False, ending=b"\n", is_open=False):
    """Return the bytes of some lines; `is_open`: the last one has no end."""
    lines, texts, bad = [], [], {}
    for number, (kind, value) in enumerate(content, start=1):
        if kind == "good":
            texts.append(value)
            lines.append(json.dumps({"text": value}, ensure_ascii=escaped).encode())
        elif kind == "bad":
            line, bad[number] = BAD_LINES[value]
            lines.append(line)
        else:
            lines.append(value)
    data = ending.join(lines)
    return Written(data if is_open or not lines else data + ending, texts, bad)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "MAX_LINE_BYTES", LIMIT)
    return tmp_path / "mutated.jsonl"


def read(path):
    """Return texts and {line: reason} of a file."""
    texts, bad = [], {}
    for record in read_file(path, "the file", "test", "text"):
        if isinstance(record, BadLine):
            assert record.file == "the file" and record.line not in bad
            bad[record.line] = record.reason
        else:
            assert isinstance(record, Document)
            texts.append(record.text)
    return texts, bad


MANY = settings(
    max_examples=1500,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
SOME = settings(MANY, max_examples=300)


@MANY
@given(contents, st.booleans(), st.sampled_from([b"\n", b"\r\n"]), st.booleans(), st.integers(0, 5))
@example([("bad", "only NULs"), ("good", "one")], False, b"\n", False, 0)
def test_every_good_line_is_read_and_every_bad_one_named(
    place, content, escaped, ending, is_open, shell
):
    written = write(content, escaped=escaped, ending=ending, is_open=is_open)
    mark = b"\xef\xbb\xbf" if shell == 1 else b""
    pack = {2: gzip.compress, 3: zstandard.ZstdCompressor().compress}.get(shell, bytes)
    place.write_bytes(pack(mark + written.data))
    texts, bad = read(place)
    assert texts == written.texts
    if texts or bad != {0: "binary data, no text"}:  # which a file of nothing but bad lines may be
        assert bad.keys() == written.bad.keys()
        assert all(reason in bad[line] for line, reason in written.bad.items())


@SOME
@given(st.lists(good_lines | blank_lines, min_size=1, max_size=20), st.sampled_from([
    "utf-16", "utf-16-le", "utf-16-be", "utf-32"]))  # fmt: skip
def test_other_encodings_with_a_byte_order_mark_are_recoded(place, content, encoding):
    written = write(content)
    mark = "" if encoding in ("utf-16", "utf-32") else "\ufeff"
    place.write_bytes((mark + written.data.decode()).encode(encoding))
    assert read(place) == (written.texts, {})


@SOME
@given(st.lists(good_lines | bad_lines, min_size=1, max_size=20), st.data(), st.booleans())
def test_a_truncated_archive_gives_what_came_before_and_says_so(place, content, data, is_gzip):
    written = write(content)
    packed = gzip.compress(written.data) if is_gzip else zstandard.compress(written.data)
    length = data.draw(st.integers(4, len(packed) - 1))
    place.write_bytes(packed[:length])
    texts, bad = [], []
    for record in read_file(place, "the file", "test", "text"):
        if isinstance(record, BadLine):
            bad.append(record)
        else:
            texts.append(record.text)
    assert texts == written.texts[: len(texts)]
    assert bad, "nothing says that the archive is cut"


@SOME
@given(
    st.binary(max_size=3000),
    st.sampled_from(
        [".jsonl", ".json", ".txt", ".csv", ".html", ".parquet", ".jsonl.gz", ".txt.zst"]
    ),
)
def test_any_bytes_in_any_format_raise_nothing(place, data, suffix):
    path = place.with_name(f"any{suffix}")
    path.write_bytes(data)
    for record in read_file(path, "the file", "test", "text"):
        assert isinstance(record, Document | BadLine)


def test_preparation_keeps_the_good_lines_of_many_damaged_files(tmp_path):
    rng = random.Random(0)
    folder = tmp_path / "input"
    folder.mkdir()
    expected, kept = {}, Counter()
    for number in range(40):
        content = []
        for row in range(rng.randrange(1, 12)):
            if rng.random() < 0.5:
                name = rng.choice([name for name in BAD_LINES if "long" not in name])
                content.append(("bad", name))
            else:
                text = " ".join([f"file{number}row{row}", *rng.choices(WORDS, k=20)])
                content.append(("good", text))
                kept[text] += 1
        written = write(content)
        (folder / f"{number:02}.jsonl").write_bytes(written.data)
        expected |= {(f"{number:02}.jsonl", line): why for line, why in written.bad.items()}
    (folder / "empty.jsonl").write_bytes(b"")
    cfg = PrepareConfig.build({
        "input_path": str(folder), "output_dir": tmp_path / "out", "vocab_size": 320,
        "language": None, "use_minhash": False, "num_workers": 1,
    })  # fmt: skip
    out = prepare(cfg)
    rows = [
        json.loads(line)
        for path in sorted(out.glob("*_0*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert Counter(row["text"] for row in rows) == kept
    reported = [
        json.loads(line)
        for line in (out / "rejected/bad_lines.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert {(row["file"], row["line"]) for row in reported} == expected.keys()
    assert all(expected[row["file"], row["line"]] in row["reason"] for row in reported)
