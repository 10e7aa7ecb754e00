"""Cleaned documents on disk between the steps of preparation, a few bytes of each in memory.

Knows nothing about why a document is dropped later.
"""

import json
import mmap
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from utils.data.filters import Refined
from utils.data.records import row_line


class Spool:
    """Append-only lines with their digests, band keys and origins."""

    def __init__(self, folder: Path, bands: int) -> None:
        self._lines_path = folder / "clean.jsonl"
        self._keys_path = folder / "keys.bin"
        self._lines = self._lines_path.open("wb")
        self._keys_file = self._keys_path.open("wb")
        self._map: mmap.mmap | None = None
        self._bands = bands
        self._offsets = array("Q", [0])
        self._digests = bytearray()
        self._characters = array("L")
        self._origins = array("H")
        self._label_numbers = array("L")
        self._labels: list[str] = []
        self._label_index: dict[str, int] = {}
        self._replaced: dict[int, bytes] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in (self._map, self._lines, self._keys_file):
            if file is not None:
                file.close()

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def add(self, refined: Refined, origin: int) -> None:
        """Append the documents of one batch; `origin` is the number of their source."""
        end = self._offsets[-1]
        for line in refined.lines:
            end += len(line)
            self._offsets.append(end)
        self._lines.writelines(refined.lines)
        self._keys_file.write(refined.keys.tobytes())
        self._digests += b"".join(refined.digests)
        self._characters.extend(refined.characters)
        self._origins.extend([origin] * len(refined.lines))
        self._label_numbers.extend(map(self._label_number, refined.labels))

    def _label_number(self, label: str) -> int:
        if label not in self._label_index:
            self._label_index[label] = len(self._labels)
            self._labels.append(label)
        return self._label_index[label]

    def finish(self) -> None:
        """End writing; documents can be read from now on."""
        self._lines.flush()
        self._keys_file.flush()
        if self._offsets[-1]:
            with self._lines_path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    @property
    def keys(self) -> np.ndarray:
        """Band keys, shape [documents, bands], read from the disk when they are used."""
        if not len(self) * self._bands:
            return np.empty((len(self), self._bands), np.uint64)
        shape = (len(self), self._bands)
        return np.memmap(self._keys_path, np.uint64, "r", shape=shape)

    @property
    def digests(self) -> np.ndarray:
        """Digests of the texts as two 64-bit numbers, shape [documents, 2]."""
        return np.frombuffer(bytes(self._digests), ">u8").reshape(-1, 2).astype(np.uint64)

    @property
    def characters(self) -> np.ndarray:
        """Length of each document."""
        return np.array(self._characters, np.int64)

    @property
    def origins(self) -> np.ndarray:
        """Number of each document's source."""
        return np.array(self._origins, np.int64)

    def line(self, number: int) -> bytes:
        """Return the stored JSON line of a document."""
        assert self._map is not None, "finish() comes first"
        if number in self._replaced:
            return self._replaced[number]
        return self._map[self._offsets[number] : self._offsets[number + 1]]

    def row(self, number: int) -> dict[str, str]:
        """Return a document as {"id", "text", "source"}."""
        return json.loads(self.line(number))

    def replace(self, number: int, text: str) -> None:
        """Give a document another text; digest and band keys stay those of the first one."""
        self._replaced[number] = row_line(self.row(number) | {"text": text})
        self._characters[number] = len(text)

    def label(self, number: int) -> str:
        """Return the source label in a document's row."""
        return self._labels[self._label_numbers[number]]

    def texts(self, numbers: Iterable[int]) -> Iterator[str]:
        """Yield the texts of some documents."""
        for number in numbers:
            yield self.row(number)["text"]
