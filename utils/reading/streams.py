"""Bytes of a file as bounded UTF-8 blocks and lines: decompressed, byte order marks resolved.

Nothing here holds more than one block and one line in memory, so a gzip bomb or a file without
line ends costs a bad line, not the machine. Knows nothing about formats of documents.
"""

import codecs
import gzip
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Literal, Protocol

import zstandard

BLOCK_BYTES = 1 << 18
MAX_LINE_BYTES = 1 << 24
"""Longest line: 16 MiB, more than any book."""
ZSTD_INPUT_BYTES = 1 << 11
"""zstandard can blow one input byte up to 32 KiB: small bites keep a bomb's output bounded."""
GZIP_MAGIC, ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
SNIFFED_BYTES = 4096
MAX_CONTROL_SHARE = 0.05
"""Share of control characters in the first bytes from which a file is binary."""
MAX_INVALID_SHARE = 0.3
"""Share of bytes outside UTF-8 from which, with control characters, a file is binary."""
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
OBJECT_LINE = re.compile(rb"^[ \t]*\{", re.MULTILINE)
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip


class Readable(Protocol):
    """A file on the disk, or one in an archive."""

    @property
    def name(self) -> str:
        """Its name, in an archive with that of its folders."""
        ...

    def open(self, mode: Literal["rb"]) -> BinaryIO:
        """Return its bytes; a `seek` goes to the beginning only."""
        ...


class TornFile(Exception):
    """A file ends too early or its compressed data is damaged; what came before is good."""


def read_blocks(source: Readable) -> Iterator[bytes]:
    """Yield the content of a file in order, decompressed whatever its name says.

    Raises:
        TornFile: damaged or truncated compressed data, after all that could be read.
        OSError: the file cannot be read.
    """
    with source.open("rb") as file:
        magic = file.read(4)
        file.seek(0)
        if magic.startswith(GZIP_MAGIC):
            yield from _gzip_blocks(file)
        elif magic == ZSTD_MAGIC:
            yield from _zstd_blocks(file)
        else:
            while block := file.read(BLOCK_BYTES):
                yield block


def _gzip_blocks(file: BinaryIO) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=file) as stream:
        try:
            while block := stream.read1(BLOCK_BYTES):
                yield block
        except EOFError as error:
            raise TornFile("the gzip data ends too early (a truncated file)") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise TornFile(f"damaged gzip data ({error})") from error


def _zstd_blocks(file: BinaryIO) -> Iterator[bytes]:
    unpacker = None
    pending = b""
    while data := pending or file.read(ZSTD_INPUT_BYTES):
        if unpacker is None or unpacker.eof:
            unpacker = zstandard.ZstdDecompressor().decompressobj()
        try:
            block = unpacker.decompress(data)
        except zstandard.ZstdError as error:
            raise TornFile(f"damaged zstd data ({error})") from error
        pending = unpacker.unused_data if unpacker.eof else b""
        if block:
            yield block
    if unpacker is not None and not unpacker.eof:
        raise TornFile("the zstd data ends too early (a truncated file)")


def text_blocks(source: Readable, *, rows: bool = False) -> Iterator[bytes]:
    """Yield the content as UTF-8 without byte order mark; UTF-16 and UTF-32 are recoded.

    Bytes that are not UTF-8 pass through: the reader of each format decides about them. With `rows`
    a beginning of NULs (what a power cut leaves), or one in which a line begins like a JSON object,
    is no reason to give up the file.

    Raises:
        TornFile: damaged compressed data, or the file is binary.
        OSError: the file cannot be read.
    """
    blocks = read_blocks(source)
    head = next(blocks, b"").removeprefix(codecs.BOM_UTF8)
    encoding = _encoding(head)
    if encoding is None:
        if reason := _why_binary(head, rows=rows):
            raise TornFile(reason)
        yield head
        yield from blocks
        return
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    yield decoder.decode(head).encode("utf-8", "replace")
    for block in blocks:
        yield decoder.decode(block).encode("utf-8", "replace")
    yield decoder.decode(b"", final=True).encode("utf-8", "replace")


def is_compressed(head: bytes) -> bool:
    """Return whether a file that begins like this is unpacked before it is read."""
    return head.startswith((GZIP_MAGIC, ZSTD_MAGIC))


def is_plain(head: bytes, *, rows: bool = False) -> bool:
    """Return whether a file that begins like this is read byte for byte, as `text_blocks` would."""
    head = head.removeprefix(codecs.BOM_UTF8)
    return not is_compressed(head) and _encoding(head) is None and not _why_binary(head, rows=rows)


def _encoding(head: bytes) -> str | None:
    """Return the encoding that a byte order mark, or NULs at every other byte, gives away."""
    for mark, name in MARKS:
        if head.startswith(mark):
            return name
    even, odd = head[:SNIFFED_BYTES:2], head[1:SNIFFED_BYTES:2]
    if odd.count(0) > 0.4 * len(odd) and even.count(0) < 0.05 * len(even):
        return "utf-16-le"
    if even.count(0) > 0.4 * len(even) and odd.count(0) < 0.05 * len(odd):
        return "utf-16-be"
    return None


def _why_binary(head: bytes, *, rows: bool) -> str | None:
    """Return why the first bytes of a file are no text, or None."""
    if rows and (OBJECT_LINE.search(head) or not head.strip(b"\0")):
        return None
    head = head[:SNIFFED_BYTES]
    if not head:
        return None
    control = len(CONTROL.findall(head)) / len(head)
    invalid = head.decode("utf-8", "replace").count("\ufffd") / len(head)
    if control > MAX_CONTROL_SHARE or (control and invalid > MAX_INVALID_SHARE):
        return "binary data, no text"
    return None


def read_lines(blocks: Iterator[bytes], first: int = 1) -> Iterator[tuple[int, bytes | int]]:
    """Yield (line number, line without LF or CRLF); an over-long line gives its length instead.

    `first` is the number of the first line.
    """
    number, pending, skipped = first - 1, bytearray(), 0
    for block in blocks:
        *lines, rest = block.split(b"\n")
        for line in lines:
            number += 1
            if skipped or len(pending) + len(line) > MAX_LINE_BYTES:
                yield number, skipped + len(pending) + len(line)
            else:
                yield number, (bytes(pending) + line).removesuffix(b"\r")
            pending, skipped = bytearray(), 0
        pending += rest
        if skipped or len(pending) > MAX_LINE_BYTES:
            skipped, pending = skipped + len(pending), bytearray()
    if skipped:
        yield number + 1, skipped
    elif pending:
        yield number + 1, bytes(pending)


def decode_line(line: bytes) -> str:
    """Return a line of a text file: UTF-8, else Windows-1252 (every byte means something)."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("cp1252", "replace")
