"""The input cut into units of work, each with a name that tells all its result depends on.

A unit is a few pieces of files that a worker reads itself, or a batch of documents that only the
parent can read (a stream from the hub, a long packed file). Where units end depends on the input
only, so a run may be repeated, or go on, with any number of workers.
"""

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass

import xxhash

from utils.data.filters import Rules
from utils.data.pieces import PIECE_BYTES, Piece
from utils.data.readers import read_piece
from utils.data.records import BadLine, Document
from utils.data.sources import Source, iter_pieces, iter_source
from utils.files import fingerprint

CLEANING = 2
"""Raised when the same documents give another result."""
RECORD_BYTES = 100
"""Counted for each record beside its text, so that empty ones fill a unit too."""

Records = Iterator[Document | BadLine]


@dataclass(frozen=True)
class Unit:
    """Work for one worker."""

    name: str
    origin: int
    """Number of the source."""
    source: str
    """Name of the source, for the rows."""
    text_key: str
    rules: Rules
    pieces: tuple[Piece, ...] = ()
    batch: tuple[Document | BadLine, ...] = ()

    @property
    def size(self) -> int:
        """Bytes to be read, as far as they were counted; characters of a batch."""
        texts = (record.text for record in self.batch if isinstance(record, Document))
        return sum(map(len, texts)) + sum(piece.size for piece in self.pieces)

    def records(self) -> Records:
        """Yield the documents of the unit and the lines that could not be read."""
        yield from self.batch
        for piece in self.pieces:
            yield from read_piece(piece, self.source, self.text_key)


def iter_units(
    source: Source,
    origin: int,
    rules: Rules,
    text_key: str,
    num_workers: int | None,
    files: Collection[str] | None = None,
) -> Iterator[Unit]:
    """Yield the units of a source in order; of local files those with these names (None: all).

    Raises:
        DataError: the hub cannot be reached or does not have the data set.
    """
    settings = [CLEANING, asdict(rules), text_key, source.setting.name]

    def unit(content: list[str], **parts: tuple) -> Unit:
        name = f"clean-{fingerprint([settings, content])}"
        return Unit(name, origin, source.setting.name, text_key, rules, **parts)

    def batches(records: Records) -> Iterator[Unit]:
        for batch in _batches(records):
            yield unit([_digest(batch)], batch=tuple(batch))

    pieces = iter_pieces(source)
    if pieces is None:
        yield from batches(iter_source(source, text_key, num_workers))
        return
    chosen = (piece for piece in pieces if files is None or piece.name in files)
    for group in _groups(chosen):
        if group[0].is_long:
            yield from batches(read_piece(group[0], source.setting.name, text_key))
        else:
            names = [f"{piece.name}:{piece.first_line} {piece.digest}" for piece in group]
            yield unit(names, pieces=tuple(group))


def _groups(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    """Yield runs of pieces that are enough for a unit, and long ones alone."""
    group: list[Piece] = []
    size = 0
    for piece in pieces:
        if group and (piece.is_long or size >= PIECE_BYTES):
            yield group
            group, size = [], 0
        if piece.is_long:
            yield [piece]
        else:
            group.append(piece)
            size += RECORD_BYTES + piece.size
    if group:
        yield group


def _batches(records: Records) -> Iterator[list[Document | BadLine]]:
    batch: list[Document | BadLine] = []
    size = 0
    for record in records:
        batch.append(record)
        size += RECORD_BYTES + (len(record.text) if isinstance(record, Document) else 0)
        if size >= PIECE_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _digest(batch: list[Document | BadLine]) -> str:
    digest = xxhash.xxh3_128()
    for record in batch:
        fields = (
            (record.id, record.source, record.text)
            if isinstance(record, Document)
            else (record.file, str(record.line), record.reason)
        )
        digest.update("\x00".join(fields).encode("utf-8", "surrogatepass") + b"\x01")
    return digest.hexdigest()
