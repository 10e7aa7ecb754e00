"""Bytes of any file, bounded, with what is broken named."""

import gzip

import pytest
import zstandard

from utils.reading import streams
from utils.reading.streams import TornFile, decode_line, read_blocks, read_lines, text_blocks

DATA = b"".join(b"line number %d of a text file\n" % number for number in range(50_000))


def _collect(blocks):
    """Return everything that was yielded and the reason of a torn end."""
    data = bytearray()
    try:
        for block in blocks:
            data += block
    except TornFile as error:
        return bytes(data), str(error)
    return bytes(data), None


@pytest.fixture
def write(tmp_path):
    def write(data, name="file.txt"):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_compression_is_told_by_the_content_and_not_by_the_name(write, pack):
    assert _collect(read_blocks(write(pack(DATA)))) == (DATA, None)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_truncated_file_gives_what_came_before(write, pack):
    packed = pack(DATA)
    data, reason = _collect(read_blocks(write(packed[: len(packed) // 2])))
    assert "too early" in reason
    assert DATA.startswith(data)
    assert len(data) > len(DATA) // 4


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_what_follows_a_good_member_does_not_spoil_it(write, pack):
    assert _collect(read_blocks(write(pack(DATA) + pack(DATA)))) == (DATA + DATA, None)
    data, reason = _collect(read_blocks(write(pack(DATA) + b"garbage!")))
    assert data == DATA
    assert "damaged" in reason


def test_a_wrong_checksum_is_named(write):
    data, reason = _collect(read_blocks(write(gzip.compress(DATA)[:-8] + b"\0" * 8)))
    assert data == DATA
    assert "damaged gzip data" in reason


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"])
def test_other_unicode_encodings_are_recoded(write, encoding):
    text = "plain ASCII lines\nwith caf\u00e9 and \u4e2d\u6587\n" * 3000
    assert _collect(text_blocks(write(text.encode(encoding)))) == (text.encode(), None)


def test_binary_data_are_no_text(write):
    data, reason = _collect(text_blocks(write(bytes(range(256)) * 100)))
    assert (data, reason) == (b"", "binary data, no text")


def test_a_few_nuls_do_not_make_a_file_binary(write):
    assert _collect(text_blocks(write(b"\0\0\n" + DATA)))[1] is None


def test_lines_are_numbered_and_lose_their_ends():
    blocks = iter([b"one\r\ntw", b"o\n\nfo", b"ur"])
    assert list(read_lines(blocks)) == [(1, b"one"), (2, b"two"), (3, b""), (4, b"four")]


def test_an_over_long_line_is_skipped_and_measured(monkeypatch):
    monkeypatch.setattr(streams, "MAX_LINE_BYTES", 10)
    blocks = iter([b"short\n", b"x" * 8, b"x" * 8, b"x" * 8 + b"\nnext\n", b"y" * 30])
    assert list(read_lines(blocks)) == [(1, b"short"), (2, 24), (3, b"next"), (4, 30)]


def test_a_bomb_is_never_held_in_memory(write):
    path = write(gzip.compress(b"a" * (64 << 20), 9))
    assert max(len(block) for block in read_blocks(path)) <= 1 << 20
    path = write(zstandard.compress(b"a" * (64 << 20)))
    assert max(len(block) for block in read_blocks(path)) <= 64 << 20


def test_a_line_outside_utf8_is_read_as_windows_1252():
    assert decode_line("caf\u00e9".encode()) == "caf\u00e9"
    assert decode_line(b"caf\xe9 \x93quoted\x94") == "caf\u00e9 \u201cquoted\u201d"
