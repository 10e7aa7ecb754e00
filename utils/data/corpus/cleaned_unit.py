"""What cleaning makes of a unit, as it lies in the store: written by a worker, read by every step.

Documents lie in packed frames of about FRAME_BYTES, so that any one of them is a short read away.
The keys by which documents may repeat each other are sorted within the unit, so that all keys of a
range can be had without reading the rest. Knows nothing about what becomes of a document later.

Legend: D documents, F frames, R rows of keys (the text's digest first, then the bands).
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import zstandard

from utils.data.cleaning.batch import Refined, refine
from utils.data.corpus.rejected import LossRecorder
from utils.data.corpus.work_units import WorkUnit
from utils.data.work.cache import ResultCache
from utils.reading.documents import BadLine, row_line

FRAME_BYTES = 1 << 15
ZSTD_LEVEL = 1
CACHED_FRAMES, CACHED_UNITS = 512, 256
MAX_KEY = (1 << 64) - 1
FRAME_END = 1 << 62


def clean_unit(task: tuple[str, WorkUnit]) -> str:
    """Clean the documents of a unit into the store unless they are there; return the unit's name.

    A pure function of the unit (for a worker process).
    """
    folder, unit = task
    store = ResultCache(Path(folder))
    if not store.has(unit.name):
        writer = _Writer()
        documents = []
        for record in unit.records():
            if isinstance(record, BadLine):
                writer.bad(record)
            else:
                documents.append(record)
        writer.add(refine((documents, unit.rules)))
        store.put(unit.name, writer.arrays(unit.rules.bands), writer.record())
    return unit.name


class _Writer:
    """Collects the documents of a unit."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._losses = LossRecorder()
        self._labels: dict[str, int] = {}
        self._label_numbers: list[int] = []
        self._characters: list[int] = []
        self._digests: list[bytes] = []
        self._keys: list[np.ndarray] = []
        self._packer = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
        self._frames: list[bytes] = []
        self._frame_documents = [0]
        self._open = bytearray()
        self._starts: list[int] = []

    def bad(self, line: BadLine) -> None:
        self._losses.bad(
            {"file": line.file, "line": line.line, "reason": line.reason, "bytes": line.num_bytes}
        )

    def add(self, refined: Refined) -> None:
        self._counts.update(refined.counts)  # `+=` would lose negative counts
        for rejection in refined.rejections:
            self._losses.count(rejection.reason, 1, rejection.characters)
            self._losses.sample(rejection.reason, rejection.record())
        for line in refined.lines:
            self._starts.append(len(self._open))
            self._open += line
            if len(self._open) >= FRAME_BYTES:
                self._close_frame()
        self._characters += refined.characters
        self._digests += refined.digests
        self._keys.append(refined.keys)
        for label in refined.labels:
            self._label_numbers.append(self._labels.setdefault(label, len(self._labels)))

    def _close_frame(self) -> None:
        if self._open:
            self._frames.append(self._packer.compress(bytes(self._open)))
            self._frame_documents.append(len(self._starts))
            self._open.clear()

    def arrays(self, bands: int) -> dict[str, np.ndarray]:
        """Return what is stored of the unit."""
        self._close_frame()
        digests = np.frombuffer(b"".join(self._digests), ">u8").reshape(-1, 2).astype(np.uint64)
        keys = np.concatenate([batch for batch in self._keys if len(batch)] or [
            np.empty((0, bands), np.uint64)
        ])  # fmt: skip
        rows = np.concatenate((digests[:, :1], keys), axis=1).T
        order = np.argsort(rows, axis=1, kind="stable").astype(np.uint32)
        ends = np.cumsum([0, *map(len, self._frames)], dtype=np.uint64)
        return {
            "text": np.frombuffer(b"".join(self._frames), np.uint8),
            "frame_ends": ends,
            "frame_documents": np.array(self._frame_documents, np.uint32),
            "starts": np.array(self._starts, np.uint32),
            "characters": np.array(self._characters, np.uint32),
            "labels": np.array(self._label_numbers, np.uint32),
            "digests": digests,
            "keys": np.take_along_axis(rows, order.astype(np.int64), axis=1),
            "order": order,
        }

    def record(self) -> dict[str, Any]:
        """Return the counts of the unit."""
        return {
            "documents": len(self._starts),
            "characters": sum(self._characters),
            "counts": dict(self._counts),
            "labels": list(self._labels),
            **self._losses.record(),
        }


@dataclass(frozen=True)
class CleanedUnit:
    """The documents of a unit, read from the store; numbers count within the unit."""

    store: ResultCache
    name: str
    origin: int
    """Number of the source."""
    documents: int
    cuts: str = ""
    """Stored result that gives some documents another text (`texts_left`); none if empty."""

    def record(self) -> dict[str, Any]:
        """Return the counts that were stored with the unit."""
        return self.store.record(self.name)

    def column(self, name: str) -> np.ndarray:
        """Return `characters`, `labels` or `digests`, one row a document."""
        values = self.store.arrays(self.name)[name]
        if name == "characters":
            for number, text in self._texts_left().items():
                values[number] = len(text)
        return values

    def keys_between(self, row: int, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the keys of a row in low <= key < high, sorted, and the documents they are of."""
        arrays = self.store.arrays(self.name)
        keys, order = (arrays.part(name, slice(row, row + 1))[0] for name in ("keys", "order"))
        start = int(np.searchsorted(keys, np.uint64(low)))
        end = len(keys) if high > MAX_KEY else int(np.searchsorted(keys, np.uint64(high)))
        return keys[start:end], order[start:end]

    def row(self, number: int) -> dict[str, str]:
        """Return a document as {"id", "text", "source"}."""
        return orjson.loads(next(self.lines([number])))

    def texts(self, numbers: Iterable[int]) -> Iterator[str]:
        """Yield the texts of some documents."""
        for line in self.lines(numbers):
            yield orjson.loads(line)["text"]

    def lines(self, numbers: Iterable[int]) -> Iterator[bytes]:
        """Yield the stored lines of some documents; in ascending order each frame is read once."""
        first_of, starts, _ = _places(self.store.folder, self.name)
        texts_left = self._texts_left()
        chosen = np.fromiter(numbers, np.int64)
        frames = np.searchsorted(first_of, chosen, "right") - 1
        is_last = chosen + 1 == first_of[frames + 1]
        ends = np.where(
            is_last, FRAME_END, starts[np.where(is_last, 0, chosen + 1)].astype(np.int64)
        )
        places = (values.tolist() for values in (chosen, frames, starts[chosen], ends))
        for number, frame, start, end in zip(*places, strict=True):
            line = _frame(self.store.folder, self.name, frame)[start:end]
            if number in texts_left:
                line = row_line(orjson.loads(line) | {"text": texts_left[number]})
            yield line

    def _texts_left(self) -> dict[int, str]:
        return _texts_left(self.store.folder, self.cuts) if self.cuts else {}


@lru_cache(maxsize=CACHED_UNITS)
def _texts_left(folder: Path, cuts: str) -> dict[int, str]:
    left = ResultCache(folder).record(cuts)["texts_left"]
    return {int(number): text for number, text in left.items()}


@lru_cache(maxsize=CACHED_UNITS)
def _places(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the first document of each frame, where documents start in it, where frames end."""
    arrays = ResultCache(folder).arrays(name)
    return arrays["frame_documents"], arrays["starts"], arrays["frame_ends"]


@lru_cache(maxsize=CACHED_FRAMES)
def _frame(folder: Path, name: str, frame: int) -> bytes:
    ends = _places(folder, name)[2]
    place = slice(int(ends[frame]), int(ends[frame + 1]))
    packed = ResultCache(folder).arrays(name).part("text", place)
    return _unpacker().decompress(packed.tobytes())


@lru_cache(maxsize=1)
def _unpacker() -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor()
