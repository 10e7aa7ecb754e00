"""Writes and reads the shards of a prepared folder: JSONL, tokens, offsets.

tokens/NAME.bin holds little-endian uint16 ids (uint32 if the vocabulary is over 65,536), every
document followed by EOS, the tokenizer's end-of-document token (`</s>` in Lumi's own);
tokens/NAME.idx the little-endian uint64 offsets of the document starts plus the end.
In a folder of format 2 (`token_compression` lz4) tokens/NAME.lz4 stands for NAME.bin: the same ids,
which `lz4 -d` gives back, in blocks (`utils.data.tokens.lz4_tokens`). Format 1 has no such files.
Knows nothing about how documents were chosen.
"""

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

from utils.checkout import PROCESSED, prepared_folders
from utils.config.prepare import TokenCompression
from utils.data.tokens.lz4_tokens import Lz4Tokens, Lz4Writer
from utils.data.tokens.token_stream import DocumentOffsets, Shard, TokenStream
from utils.errors import DataError
from utils.files import MANIFEST, folder_damage, read_json
from utils.tokenizers.control_tokens import ControlIds

FORMAT, COMPRESSED_FORMAT = 1, 2
ENDINGS: dict[TokenCompression, str] = {"none": ".bin", "lz4": ".lz4"}
DTYPES = {"uint16": "<u2", "uint32": "<u4"}


def token_dtype(vocab_size: int) -> str:
    """Return the type that holds the ids: uint16 up to a vocabulary of 65,536."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


def format_keys(compression: TokenCompression) -> dict[str, Any]:
    """Return the keys of the manifest that tell how the tokens are stored."""
    if compression == "none":
        return {"format": FORMAT}
    return {"format": COMPRESSED_FORMAT, "token_compression": compression}


@dataclass(frozen=True)
class Encoded:
    """A batch of documents as ids."""

    lines: list[bytes]
    """Lines of the documents as they stand in the text shards."""
    ids: np.ndarray
    """Ids of all documents in turn, each followed by EOS."""
    lengths: np.ndarray
    """Tokens of each document, EOS included."""
    text_bytes: np.ndarray
    """UTF-8 bytes of each document's text."""


class SplitWriter:
    """Writes the shards of a split; `summary` is its entry for the manifest.

    A new shard begins after the document with which `shard_tokens` is reached, and where asked for.
    `earlier` is the entry of shards that are in the folder already.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        shard_tokens: int,
        compression: TokenCompression = "none",
        earlier: dict[str, Any] | None = None,
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
        self._compression: TokenCompression = compression
        self._files: list[BinaryIO | Lz4Writer] = []
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
            text.write(b"".join(batch.lines[first:last]))
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
        tokens = f"tokens/{name}{ENDINGS[self._compression]}"
        names = (f"{name}.jsonl", tokens, f"tokens/{name}.idx")
        (self._folder / "tokens").mkdir(exist_ok=True)
        files = [(self._folder / name).open("wb") for name in names]
        self._files = [*files]
        if self._compression == "lz4":
            self._files[1] = Lz4Writer(files[1])
        files[2].write(np.array([0], "<u8").tobytes())
        self._end = 0
        self.summary["text_shards"].append(names[0])
        self.summary["token_shards"].append(names[1])

    def end_shard(self) -> None:
        """Let the next document begin a new shard."""
        for file in self._files:
            file.close()
        self._files = []


@dataclass(frozen=True)
class TokenShards:
    """One split of a prepared folder."""

    tokens: TokenStream
    """Ids of all documents, each followed by EOS; read from the disk when used."""
    document_offsets: DocumentOffsets
    """Start of each document in `tokens` and the end; read from the disk when used."""
    text_bytes: int
    """UTF-8 bytes of the documents' text: the denominator of bits per byte."""
    eos_id: int
    """Ends each document."""

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
        dtype = np.dtype(DTYPES[manifest["token_dtype"]])
        paths = [folder / name for name in entry["token_shards"]]
        offsets = [_mapped(path.with_suffix(".idx"), np.dtype("<u8")) for path in paths]
        shards = [_shard(*one, dtype) for one in zip(paths, offsets, strict=True)]
        stream, eos_id = TokenStream(shards), ControlIds.of(manifest).eos
        return cls(stream, DocumentOffsets(offsets), entry["text_bytes"], eos_id)

    @property
    def num_tokens(self) -> int:
        """Tokens of the split, EOS included."""
        return len(self.tokens)

    @property
    def num_documents(self) -> int:
        """Documents of the split."""
        return len(self.document_offsets) - 1


def _mapped(path: Path, dtype: np.dtype) -> np.ndarray:
    """Map a file; as a plain array, whose parts are made several times faster than of a memmap."""
    return np.memmap(path, dtype, "r").view(np.ndarray)


def _shard(path: Path, offsets: np.ndarray, dtype: np.dtype) -> Shard:
    """Map the ids of a shard.

    Raises:
        DataError: they are not as many as its .idx says.
    """
    size = int(offsets[-1])
    if path.suffix == ENDINGS["lz4"]:
        return Lz4Tokens(path, dtype, size)
    shard = _mapped(path, dtype)
    if len(shard) != size:
        raise DataError(f"{path} does not fit its .idx: prepare the data again")
    return shard


def read_dataset(folder: Path, *, hashes: bool = False) -> dict[str, Any]:
    """Return the manifest of a prepared folder after a check that its files are there, whole.

    Raises:
        DataError: it is missing, of another kind or format, or a file has another size (with
            `hashes`: another sha256).
    """
    if not (folder / MANIFEST).is_file():
        raise DataError(
            f"{folder} is not a prepared data set (no {MANIFEST}): run `make prepare`, or pass one "
            "of data/processed/ as --data_dir"
        )
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("kind") != "dataset":
        raise DataError(f"{folder} is not a prepared data set: pass one of {PROCESSED}/")
    if manifest.get("format") not in (FORMAT, COMPRESSED_FORMAT):
        raise DataError(
            f"{folder} has format {manifest.get('format')}, this version reads {FORMAT} and "
            f"{COMPRESSED_FORMAT}: prepare it again"
        )
    if damage := folder_damage(folder, hashes=hashes):
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
    if found := prepared_folders(root):
        return found[0]
    raise DataError(f"no prepared data set in {root}: run `make prepare`, or pass --data_dir")
