"""Files inside zip archives, read where they lie: nothing is extracted, nothing is trusted.

What is wrong with an archive or a member is said when it is read, as a `TornFile` whose message is
the reason. Only stored and deflated members are read: their output is bounded by their length (1032
to 1), which that of bzip2 and LZMA is not. Knows nothing about formats of documents.
"""

import io
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

from utils.reading.streams import TornFile

MAX_DIRECTORY_BYTES = 1 << 25
"""Longest table of contents (32 MiB, about 300,000 members), which is held in memory."""
PACKED_BYTES = 1 << 14
"""Read from the archive at a time."""
LOCAL_HEADER, LOCAL_MAGIC = struct.Struct("<4s22x2H"), b"PK\x03\x04"
IS_ENCRYPTED = 0x1
METHODS = {9: "deflate64", 12: "bzip2", 14: "LZMA", 93: "zstd", 95: "xz"}
HIDDEN_FOLDER = "__MACOSX"
DRIVE = re.compile(r"[A-Za-z]:")


class Archive:
    """An open zip archive.

    Raises:
        TornFile: it is no archive, or its table of contents is damaged or missing.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._file = _Bounded(path, "rb")
        try:
            found = zipfile.ZipFile(self._file).infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
            self._file.close()
            raise TornFile(f"damaged zip archive ({error})") from error
        except BaseException:
            self._file.close()
            raise
        shared = _sharing_bytes(found)
        members = [Member(self._file, one, one.header_offset in shared) for one in found]
        self._members = sorted(members, key=lambda member: member.name)
        self._named = {member.name: member for member in members}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.close()

    def members(self) -> Iterator["Member"]:
        """Yield the files in it by name, without hidden ones."""
        for member in self._members:
            parts = member.name.split("/")
            hidden = any(part[:1] == "." and part != ".." for part in parts)
            if parts[-1] and not hidden and HIDDEN_FOLDER not in parts:
                yield member

    def find(self, name: str) -> "Member | None":
        """Return the member of that name."""
        return self._named.get(name)


class _Bounded(io.FileIO):
    """File of an archive, of which no more than a table of contents is read at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"a table of contents of {size >> 20} MiB: unpack it yourself")
        return super().read(size) or b""


def _sharing_bytes(found: list[zipfile.ZipInfo]) -> set[int]:
    """Return where members begin that overlap another one, as those of some bombs do."""
    shared = set()
    for one, other in pairwise(sorted(found, key=lambda info: info.header_offset)):
        if one.header_offset + LOCAL_HEADER.size + one.compress_size > other.header_offset:
            shared |= {one.header_offset, other.header_offset}
    return shared


class Member:
    """A file in an archive; opened and named like one on the disk."""

    def __init__(self, file: io.FileIO, info: zipfile.ZipInfo, shares_bytes: bool) -> None:
        self.name = info.filename.replace("\\", "/")
        self._file, self._info = file, info
        self._problem = _problem(self.name, info, shares_bytes)

    def open(self, mode: str = "rb") -> BinaryIO:
        """Return the unpacked content, to be read once from beginning to end.

        Raises:
            TornFile: it is refused.
        """
        assert mode == "rb"
        if self._problem:
            raise TornFile(self._problem)
        return cast(BinaryIO, _Unpacked(self._file, self._info))


def _problem(name: str, info: zipfile.ZipInfo, shares_bytes: bool) -> str | None:
    """Return why a member is not read."""
    if name.startswith("/") or ".." in name.split("/") or DRIVE.match(name):
        return "its name leads out of the archive"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "a symbolic link"
    if info.flag_bits & IS_ENCRYPTED:
        return "encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        kind = METHODS.get(info.compress_type, f"method {info.compress_type}")
        return f"packed by {kind}, not by deflate: pack it again"
    if shares_bytes:
        return "shares its bytes with another member (a zip bomb)"
    return None


class _Unpacked(io.RawIOBase):
    """Content of a member, unpacked as it is read; all that is good comes before an error."""

    def __init__(self, file: io.FileIO, info: zipfile.ZipInfo) -> None:
        self._file, self._info = file, info
        self.seek(0)

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go back to the beginning."""
        assert not offset and not whence, "a member is read from its beginning"
        self._file.seek(self._info.header_offset)
        header = self._file.read(LOCAL_HEADER.size)
        if len(header) < LOCAL_HEADER.size or not header.startswith(LOCAL_MAGIC):
            raise TornFile("damaged zip archive (no member where its table of contents says)")
        _, *lengths = LOCAL_HEADER.unpack(header)
        self._place = self._info.header_offset + LOCAL_HEADER.size + sum(lengths)
        self._left = self._info.compress_size
        self._length = self._checksum = 0
        is_stored = self._info.compress_type == zipfile.ZIP_STORED
        self._unpacker = None if is_stored else zlib.decompressobj(-zlib.MAX_WBITS)
        return 0

    def readinto(self, buffer: Any, /) -> int:
        """Fill a part of the buffer."""
        data = self._unpack(len(buffer)) if self._unpacker else self._packed(len(buffer))
        room = self._info.file_size - self._length
        if data and not room:
            raise TornFile("damaged zip data (longer than the archive says)")
        data = data[:room]
        self._length += len(data)
        self._checksum = zlib.crc32(data, self._checksum)
        if not data and (self._length, self._checksum) != (self._info.file_size, self._info.CRC):
            raise TornFile("damaged zip data (its length or checksum is wrong)")
        buffer[: len(data)] = data
        return len(data)

    def _unpack(self, size: int) -> bytes:
        unpacker = self._unpacker
        assert unpacker is not None
        while not unpacker.eof:
            packed = unpacker.unconsumed_tail or self._packed(PACKED_BYTES)
            try:
                data = unpacker.decompress(packed, size)
            except zlib.error as error:
                raise TornFile(f"damaged zip data ({error})") from error
            if data:
                return data
            if not packed:
                raise TornFile("damaged zip data (it ends too early)")
        return b""

    def _packed(self, size: int) -> bytes:
        self._file.seek(self._place)
        data = self._file.read(min(size, self._left))
        if self._left and not data:
            raise TornFile("damaged zip archive (it ends too early)")
        self._place += len(data)
        self._left -= len(data)
        return data
