"""Cuts the input into units of work, each with a name that tells all its result depends on.

A unit is a few parts of files that a worker reads itself, or a batch of documents that only the
parent can read (a stream from the hub, a long packed file). Where units end depends on the input
only, so a run may be repeated, or go on, with any number of workers.
"""

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass

import xxhash

from utils.data.cleaning.batch import Rules
from utils.data.corpus.sources import Source, iter_parts, iter_source
from utils.files import fingerprint
from utils.reading.documents import BadLine, Document, Records
from utils.reading.file_parts import PART_BYTES, FilePart
from utils.reading.readers import read_part

CLEANING = 2
"""Raised when the same documents give another result."""
RECORD_BYTES = 100
"""Counted for each record beside its text, so that empty ones fill a unit too."""


@dataclass(frozen=True)
class WorkUnit:
    """Work for one worker."""

    name: str
    origin: int
    """Number of the source."""
    source: str
    """Name of the source, for the rows."""
    text_key: str
    rules: Rules
    parts: tuple[FilePart, ...] = ()
    batch: tuple[Document | BadLine, ...] = ()

    @property
    def size(self) -> int:
        """Bytes to be read, as far as they were counted; characters of a batch."""
        texts = (record.text for record in self.batch if isinstance(record, Document))
        return sum(map(len, texts)) + sum(part.size for part in self.parts)

    def records(self) -> Records:
        """Yield the documents of the unit and the lines that could not be read."""
        yield from self.batch
        for part in self.parts:
            yield from read_part(part, self.source, self.text_key)


def iter_units(
    source: Source,
    origin: int,
    rules: Rules,
    text_key: str,
    num_workers: int | None,
    files: Collection[str] | None = None,
) -> Iterator[WorkUnit]:
    """Yield the units of a source in order; of local files those with these names (None: all).

    Raises:
        DataError: the hub cannot be reached or does not have the data set.
    """
    settings = [CLEANING, asdict(rules), text_key, source.setting.name]

    def unit(content: list[str], **parts: tuple) -> WorkUnit:
        name = f"clean-{fingerprint([settings, content])}"
        return WorkUnit(name, origin, source.setting.name, text_key, rules, **parts)

    def batches(records: Records) -> Iterator[WorkUnit]:
        for batch in _batches(records):
            yield unit([_digest(batch)], batch=tuple(batch))

    parts = iter_parts(source)
    if parts is None:
        yield from batches(iter_source(source, text_key, num_workers))
        return
    chosen = (part for part in parts if files is None or part.name in files)
    for group in _groups(chosen):
        if group[0].is_long:
            yield from batches(read_part(group[0], source.setting.name, text_key))
        else:
            names = [f"{part.name}:{part.first_line} {part.digest}" for part in group]
            yield unit(names, parts=tuple(group))


def _groups(parts: Iterator[FilePart]) -> Iterator[list[FilePart]]:
    """Yield runs of parts that are enough for a unit, and long ones alone."""
    group: list[FilePart] = []
    size = 0
    for part in parts:
        if group and (part.is_long or size >= PART_BYTES):
            yield group
            group, size = [], 0
        if part.is_long:
            yield [part]
        else:
            group.append(part)
            size += RECORD_BYTES + part.size
    if group:
        yield group


def _batches(records: Records) -> Iterator[list[Document | BadLine]]:
    batch: list[Document | BadLine] = []
    size = 0
    for record in records:
        batch.append(record)
        size += RECORD_BYTES + (len(record.text) if isinstance(record, Document) else 0)
        if size >= PART_BYTES:
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
