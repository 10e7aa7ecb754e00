"""Local files cut into parts that can be read on their own, each with a hash of its bytes.

Long files of JSON lines are cut at line ends, parquet files between row groups; any other file, an
archive too, is one part. Where the cuts lie depends on the bytes only. Knows nothing about
documents.
"""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import xxhash

from utils.reading.archives import Archive
from utils.reading.epub import read_book
from utils.reading.parquet import group_runs
from utils.reading.streams import (
    BLOCK_BYTES,
    Readable,
    TornFile,
    is_compressed,
    is_plain,
    read_blocks,
)

PART_BYTES = 1 << 22
"""Length from which lines are cut into several parts: work for a fraction of a second."""
MAX_GROUP = 4
"""Parts whose length a row group may have: it cannot be cut."""
LINE_KINDS = frozenset({".jsonl", ".ndjson"})
ARCHIVES = frozenset({".zip", ".epub"})
"""Suffixes of archives; what is inside counts, not the pictures of a book."""


@dataclass(frozen=True)
class FilePart:
    """A file, or the lines of one between two places."""

    path: str
    name: str
    """Name of the file in ids and messages."""
    digest: str
    """Hash of the bytes; of an unreadable file, the reason."""
    size: int
    """Bytes once unpacked, as far as they were counted: up to PART_BYTES and one block."""
    start: int = 0
    end: int | None = None
    """None: the whole file."""
    first_line: int = 1
    """Number of the first line or row."""
    groups: tuple[int, int] | None = None
    """Row groups of a parquet file from the first to before the second; None: no such part."""
    file_digest: str = ""
    """xxh3_128 of the bytes of the whole file."""

    @property
    def is_long(self) -> bool:
        """Return whether this is more than one worker should read at once."""
        most = PART_BYTES if self.groups is None else PART_BYTES * MAX_GROUP
        return self.end is None and self.size > most


def split_file(path: Path, name: str, kind: str) -> list[FilePart]:
    """Return the parts of a file in order; `kind` is its suffix without that of a packer."""
    try:
        with path.open("rb") as file:
            head = file.read(BLOCK_BYTES)
            file.seek(0)
            digest = xxhash.xxh3_128()
            if kind in LINE_KINDS and len(head) == BLOCK_BYTES and is_plain(head, rows=True):
                parts = list(_line_parts(file, str(path), name, digest))
                return [replace(part, file_digest=digest.hexdigest()) for part in parts]
            size = 0
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
                size += len(block)
        if kind in ARCHIVES or is_compressed(head):
            unpacked = _unpacked_bytes(_contents(path, kind))
            is_short_book = kind in ARCHIVES and unpacked <= PART_BYTES
            size = unpacked if is_short_book else max(size, unpacked)
    except OSError as error:
        return [FilePart(str(path), name, f"unreadable: {error.strerror}", 0)]
    if kind == ".parquet" and not is_compressed(head):
        return list(_row_groups(path, name, digest.hexdigest(), size))
    return [FilePart(str(path), name, digest.hexdigest(), size, file_digest=digest.hexdigest())]


def _row_groups(path: Path, name: str, digest: str, size: int) -> Iterator[FilePart]:
    """Yield runs of row groups that are enough for a part; a damaged file is one part."""
    runs = list(group_runs(path, PART_BYTES))
    if not runs:
        yield FilePart(str(path), name, digest, size, file_digest=digest)
    for groups, first, held in runs:
        own = f"{digest} {groups[0]}-{groups[1]}"
        yield FilePart(str(path), name, own, held, 0, None, first, groups, digest)


def _line_parts(file: BinaryIO, path: str, name: str, whole: xxhash.xxh3_128) -> Iterator[FilePart]:
    """Yield parts that end at line ends; all bytes are given to `whole` as well."""
    start, line = 0, 1
    while block := file.read(PART_BYTES):
        whole.update(block)
        digest = xxhash.xxh3_128(block)
        lines = block.count(b"\n")
        while not block.endswith(b"\n") and (block := file.readline(BLOCK_BYTES)):
            whole.update(block)
            digest.update(block)
            lines += block.count(b"\n")
        end = file.tell()
        yield FilePart(path, name, digest.hexdigest(), end - start, start, end, line)
        start, line = end, line + lines


def _contents(path: Path, kind: str) -> Iterator[Readable]:
    """Yield what is read of a file: itself, or what is in it.

    Raises:
        TornFile: a damaged archive.
    """
    if kind not in ARCHIVES:
        yield path
        return
    with Archive(path) as archive:
        yield from archive.members() if kind == ".zip" else read_book(archive).chapters


def _unpacked_bytes(contents: Iterator[Readable]) -> int:
    """Return how many bytes packed files give, counted to the first over PART_BYTES."""
    size = 0
    while size <= PART_BYTES:
        try:
            for block in read_blocks(next(contents)):
                size += len(block)
                if size > PART_BYTES:
                    break
        except StopIteration:
            break
        except TornFile:
            continue  # the generator of a damaged archive ends here
    return size


def part_blocks(part: FilePart) -> Iterator[bytes]:
    """Yield the bytes of a part with an end, without the byte order mark of the file.

    Raises:
        OSError: the file cannot be read.
    """
    assert part.end is not None, "a whole file has readers of its own"
    with Path(part.path).open("rb") as file:
        file.seek(part.start)
        left = part.end - part.start
        while left and (block := file.read(min(BLOCK_BYTES, left))):
            is_first = not part.start and left == part.size
            yield block.removeprefix(codecs.BOM_UTF8) if is_first else block
            left -= len(block)
