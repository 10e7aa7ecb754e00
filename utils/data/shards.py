"""The format of a prepared folder: JSONL shards, token shards, offsets; written here, read here.

tokens/NAME.bin holds little-endian uint16 (uint32 from 65,536 pieces) ids, every document followed
by `</s>`; tokens/NAME.idx the little-endian uint64 offsets of the document starts plus the end.
Knows nothing about how documents were chosen.
"""

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self, overload

import numpy as np

from utils.errors import DataError
from utils.files import MANIFEST, folder_damage, read_json

PROCESSED = Path("data/processed")
FORMAT = 1
DTYPES = {"uint16": "<u2", "uint32": "<u4"}


def token_dtype(vocab_size: int) -> str:
    """Return the name of the smallest type that holds the ids: uint16 up to 65,536 pieces."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


@dataclass(frozen=True)
class Encoded:
    """A batch of documents as ids."""

    lines: list[bytes]
    """The documents as they stand in the text shards."""
    ids: np.ndarray
    """Of all documents in turn, each followed by `</s>`."""
    lengths: np.ndarray
    """Tokens of each document, `</s>` included."""
    text_bytes: np.ndarray
    """UTF-8 bytes of each document's text."""


class SplitWriter:
    """Writes the shards of a split; `summary` is its entry for the manifest.

    A new shard begins after the document with which `shard_tokens` is reached, and where asked for.
    `earlier` is the entry of shards that are in the folder already.
    """

    def __init__(
        self, folder: Path, split: str, shard_tokens: int, earlier: dict[str, Any] | None = None
    ) -> None:
        self.summary = deepcopy(earlier) if earlier is not None else {
            "documents": 0,
            "tokens": 0,
            "text_bytes": 0,
            "text_shards": [],
            "token_shards": [],
        }  # fmt: skip
        self._folder = folder
        self._split = split
        self._shard_tokens = shard_tokens
        self._files: list[BinaryIO] = []
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.end_shard()

    def write(self, batch: Encoded) -> None:
        """Append documents."""
        ends = np.cumsum(batch.lengths, dtype=np.int64)
        first, begin = 0, 0
        while first < len(ends):
            if not self._files:
                self._open()
            full = begin + self._shard_tokens - self._end
            last = min(int(np.searchsorted(ends, full)) + 1, len(ends))
            end = int(ends[last - 1])
            text, tokens, offsets = self._files
            text.writelines(batch.lines[first:last])
            tokens.write(batch.ids[begin:end].tobytes())
            offsets.write((ends[first:last] + (self._end - begin)).astype("<u8").tobytes())
            self._end += end - begin
            first, begin = last, end
            if self._end >= self._shard_tokens:
                self.end_shard()
        self.summary["documents"] += len(ends)
        self.summary["tokens"] += begin
        self.summary["text_bytes"] += int(batch.text_bytes.sum(dtype=np.int64))

    def _open(self) -> None:
        name = f"{self._split}_{len(self.summary['text_shards']):05d}"
        names = (f"{name}.jsonl", f"tokens/{name}.bin", f"tokens/{name}.idx")
        self._files = [(self._folder / name).open("wb") for name in names]
        self._files[2].write(np.array([0], "<u8").tobytes())
        self._end = 0
        self.summary["text_shards"].append(names[0])
        self.summary["token_shards"].append(names[1])

    def end_shard(self) -> None:
        """Let the next document begin a new shard."""
        for file in self._files:
            file.close()
        self._files = []


class TokenStream:
    """The ids of several memory-mapped shards as one sequence: `tokens[10:20]` is an array."""

    def __init__(self, shards: list[np.ndarray]) -> None:
        self.shards = shards
        self.starts = np.cumsum([0, *map(len, shards)])
        """First token of each shard and the end."""
        self.dtype = shards[0].dtype if shards else np.dtype("<u2")

    def __len__(self) -> int:
        return int(self.starts[-1])

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> np.ndarray: ...
    def __getitem__(self, place: int | slice) -> int | np.ndarray:
        if not isinstance(place, slice):
            place = range(len(self))[place]
            return int(self[place : place + 1][0])
        start, stop, step = place.indices(len(self))
        if step != 1:
            raise ValueError(f"tokens[{start}:{stop}:{step}]: only steps of 1")
        first = int(np.searchsorted(self.starts, start, "right")) - 1
        parts = []
        while start < stop:
            offset = start - int(self.starts[first])
            part = self.shards[first][offset : offset + stop - start]
            parts.append(part)
            start += len(part)
            first += 1
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty(0, self.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)


@dataclass(frozen=True)
class TokenShards:
    """One split of a prepared folder."""

    tokens: TokenStream
    """Ids of all documents, each followed by `</s>`; read from the disk when used."""
    document_offsets: np.ndarray
    """Start of each document in `tokens` and the end; int64, shape [documents + 1]."""
    text_bytes: int
    """UTF-8 bytes of the documents' text: the denominator of bits per byte."""

    @classmethod
    def open(cls, folder: Path, split: str) -> Self:
        """Map the token shards of `split` ("train" or "val").

        Raises:
            DataError: the folder is no prepared one, or a shard is damaged.
        """
        manifest = read_dataset(folder)
        entry = manifest["splits"].get(split)
        if entry is None:
            known = ", ".join(sorted(manifest["splits"]))
            raise DataError(f"{folder} has no split {split!r}: use one of {known}")
        dtype = DTYPES[manifest["token_dtype"]]
        shards, offsets, start = [], [np.zeros(1, np.int64)], 0
        for name in entry["token_shards"]:
            path = folder / name
            shards.append(np.memmap(path, dtype, "r"))
            ends = np.fromfile(path.with_suffix(".idx"), "<u8").astype(np.int64)
            if not len(ends) or ends[-1] != len(shards[-1]):
                raise DataError(f"{path} does not fit its .idx: prepare {folder} again")
            offsets.append(ends[1:] + start)
            start += int(ends[-1])
        return cls(TokenStream(shards), np.concatenate(offsets), entry["text_bytes"])

    @property
    def num_tokens(self) -> int:
        """Tokens of the split, `</s>` included."""
        return len(self.tokens)

    @property
    def num_documents(self) -> int:
        """Documents of the split."""
        return len(self.document_offsets) - 1


def read_dataset(folder: Path) -> dict[str, Any]:
    """Return the manifest of a prepared folder after a check that its files are there, whole.

    Raises:
        DataError: it is missing, of another kind or format, or a file has another size.
    """
    if not (folder / MANIFEST).is_file():
        raise DataError(
            f"{folder} is not a prepared data set (no {MANIFEST}): run `make prepare`, or pass one "
            "of data/processed/ as --data_dir"
        )
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("kind") != "dataset":
        raise DataError(f"{folder} is not a prepared data set: pass one of {PROCESSED}/")
    if manifest.get("format") != FORMAT:
        raise DataError(
            f"{folder} has format {manifest.get('format')}, this version reads {FORMAT}: "
            "prepare it again"
        )
    if damage := folder_damage(folder, hashes=False):
        raise DataError(f"{damage}: prepare the data again")
    return manifest


def iter_documents(folder: Path, split: str) -> Iterator[dict[str, str]]:
    """Yield the {"id", "text", "source"} rows of a split in the order of its tokens.

    Raises:
        DataError: the folder is no prepared one.
    """
    for name in read_dataset(folder)["splits"][split]["text_shards"]:
        with (folder / name).open(encoding="utf-8", newline="\n") as file:
            for line in file:
                yield json.loads(line)


def newest_dataset(root: Path = PROCESSED) -> Path:
    """Return the prepared folder below `root` that was written last.

    Raises:
        DataError: there is none.
    """
    manifests = [
        path for path in root.glob(f"*/{MANIFEST}") if not path.parent.name.startswith(".")
    ]
    if not manifests:
        raise DataError(f"no prepared data set in {root}: run `make prepare`, or pass --data_dir")
    return max(manifests, key=lambda path: (path.stat().st_mtime_ns, path.parent.name)).parent
