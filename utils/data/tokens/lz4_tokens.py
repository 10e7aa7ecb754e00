"""Ids in an LZ4 file whose blocks are unpacked one by one, when they are asked for.

The file is a standard LZ4 frame that `lz4 -d` turns back into the uncompressed shard: independent
blocks of 64 KiB of ids, each with its xxh32. A skippable frame behind it holds the places of the
blocks and of the end (little-endian uint64), so that any id is found without looking at others.

Reference: LZ4 frame format 1.6.4; the table at the end as in the seekable format of Zstandard.
"""

import struct
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import lz4.block
import numpy as np
import xxhash

from utils.errors import DataError

BLOCK_BYTES = 1 << 16
"""Length of a block. Twice as long takes 2 % less space and as long again to unpack."""
LEVEL = 9
"""Level of compression; 12 gives 0.1 % more at half the speed. Reading does not depend on it.
"""
HEADER = bytes.fromhex("04224d187440bd")
"""Magic number; version 1, independent blocks, a checksum of each and of all; 64 KiB; checksum."""
END_MARK = bytes(4)
SKIPPABLE = 0x184D2A50
STORED = 1 << 31
"""Bit of a block's size that says it would not have become smaller and is stored as it is."""
CACHED_BLOCKS = 64
"""Unpacked blocks that are kept, of all shards together: 4 MiB."""


class Lz4Writer:
    """Packs what is written into an open file; the blocks do not depend on the size of writes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._content = xxhash.xxh32()
        self._pending = b""
        self._places = [file.write(HEADER)]

    def write(self, data: bytes) -> None:
        """Append bytes."""
        data = self._pending + data
        whole = len(data) - len(data) % BLOCK_BYTES
        for start in range(0, whole, BLOCK_BYTES):
            self._put(data[start : start + BLOCK_BYTES])
        self._pending = data[whole:]

    def close(self) -> None:
        """Write what is left and the table, and close the file."""
        with self._file:
            if self._pending:
                self._put(self._pending)
            table = np.array(self._places, "<u8").tobytes()
            end = END_MARK + struct.pack("<I", self._content.intdigest())
            self._file.write(end + struct.pack("<II", SKIPPABLE, len(table)) + table)

    def _put(self, data: bytes) -> None:
        packed = lz4.block.compress(
            data, mode="high_compression", compression=LEVEL, store_size=False
        )
        size = len(packed)
        if size >= len(data):
            packed, size = data, len(data) | STORED
        written = self._file.write(struct.pack("<I", size) + packed + _checksum(packed))
        self._places.append(self._places[-1] + written)
        self._content.update(data)


class Lz4Tokens:
    """Ids of one file: `tokens[10:20]` is a read-only array."""

    def __init__(self, path: Path, dtype: np.dtype, size: int) -> None:
        """Map the file at `path` of `size` ids without unpacking any.

        Raises:
            DataError: it is no such file, or holds another number of blocks.
        """
        self.path = path
        self.dtype = dtype
        self.block_ids = BLOCK_BYTES // dtype.itemsize
        self._size = size
        self._file = memoryview(np.memmap(path, np.uint8, "r"))  # pyright: ignore[reportArgumentType]
        blocks = -(-size // self.block_ids)
        table = len(self._file) - 8 * (blocks + 1)
        head = struct.pack("<II", SKIPPABLE, 8 * (blocks + 1))
        if self._file[:7] != HEADER or self._file[max(0, table - len(head)) : table] != head:
            raise DataError(f"{path} is no LZ4 file of {size} tokens: prepare the data again")
        self._places = np.frombuffer(self._file[table:], "<u8")

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, place: slice) -> np.ndarray:
        """Return the ids [start, stop); within one block without a copy.

        Raises:
            DataError: a block is damaged.
        """
        start, stop, _ = place.indices(self._size)
        first, offset = divmod(start, self.block_ids)
        if stop <= start:
            return np.empty(0, self.dtype)
        if offset + stop - start <= self.block_ids:
            return _unpacked(self, first)[offset : offset + stop - start]
        out = np.empty(stop - start, self.dtype)
        done = 0
        while done < len(out):
            part = _unpacked(self, first)[offset : offset + len(out) - done]
            out[done : done + len(part)] = part
            done, first, offset = done + len(part), first + 1, 0
        return out

    def unpack(self, number: int) -> np.ndarray:
        """Return the ids of a block.

        Raises:
            DataError: its checksum differs.
        """
        start, end = self._places[number : number + 2].tolist()
        block = self._file[start:end]
        wanted = min(self.block_ids, self._size - number * self.block_ids) * self.dtype.itemsize
        packed = block[4:-4]
        size = wanted | STORED if len(packed) == wanted else len(packed)
        good = block[:4] == struct.pack("<I", size) and block[-4:] == _checksum(packed)
        try:
            if good and len(packed) < wanted:
                packed = lz4.block.decompress(packed, uncompressed_size=wanted)
        except lz4.block.LZ4BlockError:
            good = False
        if not good or len(packed) != wanted:
            raise DataError(
                f"{self.path}: block {number} is damaged (a changed or flipped byte): prepare the "
                "data again"
            )
        return np.frombuffer(packed, self.dtype)


def _checksum(data: bytes | memoryview) -> bytes:
    return struct.pack("<I", xxhash.xxh32_intdigest(data))


@lru_cache(maxsize=CACHED_BLOCKS)
def _unpacked(tokens: Lz4Tokens, number: int) -> np.ndarray:
    return tokens.unpack(number)
