"""Local files cut into pieces that can be read on their own, each with a hash of its bytes.

Long files of JSON lines are cut at line ends; any other file is one piece. Where the cuts lie
depends on the bytes only. Knows nothing about documents.
"""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import xxhash

from utils.data.streams import BLOCK_BYTES, TornFile, is_compressed, is_plain, read_blocks

PIECE_BYTES = 1 << 22
"""Length from which lines are cut into several pieces: work for a fraction of a second."""
LINE_KINDS = frozenset({".jsonl", ".ndjson"})


@dataclass(frozen=True)
class Piece:
    """A file, or the lines of one between two places."""

    path: str
    name: str
    """Of the file, in ids and messages."""
    digest: str
    """Of the bytes; of an unreadable file, the reason."""
    size: int
    """Bytes once unpacked, as far as they were counted: up to PIECE_BYTES and one block."""
    start: int = 0
    end: int | None = None
    """None: the whole file."""
    first_line: int = 1

    @property
    def is_long(self) -> bool:
        """Return whether this is more than one worker should read at once."""
        return self.end is None and self.size > PIECE_BYTES


def file_pieces(path: Path, name: str, kind: str) -> list[Piece]:
    """Return the pieces of a file in order; `kind` is its suffix without that of a packer."""
    try:
        with path.open("rb") as file:
            head = file.read(BLOCK_BYTES)
            file.seek(0)
            if kind in LINE_KINDS and len(head) == BLOCK_BYTES and is_plain(head, rows=True):
                return list(_line_pieces(file, str(path), name))
            digest = xxhash.xxh3_128()
            size = 0
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
                size += len(block)
        if is_compressed(head):
            size = max(size, _unpacked_bytes(path))
    except OSError as error:
        return [Piece(str(path), name, f"unreadable: {error.strerror}", 0)]
    return [Piece(str(path), name, digest.hexdigest(), size)]


def _line_pieces(file: BinaryIO, path: str, name: str) -> Iterator[Piece]:
    start, line = 0, 1
    while block := file.read(PIECE_BYTES):
        digest = xxhash.xxh3_128(block)
        lines = block.count(b"\n")
        while not block.endswith(b"\n") and (block := file.readline(BLOCK_BYTES)):
            digest.update(block)
            lines += block.count(b"\n")
        end = file.tell()
        yield Piece(path, name, digest.hexdigest(), end - start, start, end, line)
        start, line = end, line + lines


def _unpacked_bytes(path: Path) -> int:
    """Return how many bytes a compressed file gives, counted to the first over PIECE_BYTES."""
    size = 0
    try:
        for block in read_blocks(path):
            size += len(block)
            if size > PIECE_BYTES:
                break
    except TornFile:
        pass
    return size


def piece_blocks(piece: Piece) -> Iterator[bytes]:
    """Yield the bytes of a piece with an end, without the byte order mark of the file.

    Raises:
        OSError: the file cannot be read.
    """
    assert piece.end is not None, "a whole file has readers of its own"
    with open(piece.path, "rb") as file:
        file.seek(piece.start)
        left = piece.end - piece.start
        while left and (block := file.read(min(BLOCK_BYTES, left))):
            is_first = not piece.start and left == piece.size
            yield block.removeprefix(codecs.BOM_UTF8) if is_first else block
            left -= len(block)
