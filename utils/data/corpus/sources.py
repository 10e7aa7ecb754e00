"""Finds and reads the inputs: the hub, local files and folders, the built-in corpus.

Everything is streamed. Knows nothing about what happens to a document afterwards.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any, Literal

from utils.config.prepare import MixtureSource, PrepareConfig
from utils.errors import DataError
from utils.reading.documents import Document, Records, SkippedFile
from utils.reading.downloads import Downloads, RemoteFile
from utils.reading.file_parts import FilePart, split_file
from utils.reading.hub import HubSet, Listing, hub_errors, join_articles, list_files, stream_records
from utils.reading.readers import KINDS, is_supported, read_file, skipped_members
from utils.reading.rows import file_kind

BUILT_IN = "pydocs"
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
ALIASES: dict[str, tuple[str, str | None]] = {
    "c4": ("allenai/c4", "en"),
    "fineweb": ("HuggingFaceFW/fineweb", "sample-10BT"),
    "fineweb-edu": ("HuggingFaceFW/fineweb-edu", "sample-10BT"),
    "openwebtext": ("Skylion007/openwebtext", None),
    "tinystories": ("roneneldan/TinyStories", None),
    "wikipedia": ("wikimedia/wikipedia", "20231101.en"),
    "wikitext-2-raw-v1": ("Salesforce/wikitext", "wikitext-2-raw-v1"),
    "wikitext-103-raw-v1": ("Salesforce/wikitext", "wikitext-103-raw-v1"),
}
"""Short names of hub data sets, with the configuration that is meant."""


@dataclass
class Source:
    """One input, found and ready to be read."""

    setting: MixtureSource
    kind: Literal["pydocs", "files", "hub"]
    place: str
    """Hub id, or the path of the file or folder."""
    config: str | None = None
    files: list[Path] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)
    download_workers: int = 1
    """Files of the hub that are fetched at the same time."""
    fetched: list[RemoteFile] = field(default_factory=list)
    """Files of the hub that were read."""
    _parts: list[FilePart] | None = None
    _listing: Listing | None = None

    @property
    def label(self) -> str:
        """Name in the data card; a local place is named without its folder."""
        return (Path(self.place).name or "files") if self.kind == "files" else self.hub.label

    @property
    def hub(self) -> HubSet:
        """Return the data set of the hub that this is."""
        return HubSet(self.place, self.config, self.setting.input_split)

    @property
    def revision(self) -> str | None:
        """Return the commit of a hub data set, known once it is read."""
        return self._listing.revision if self._listing else None

    @property
    def is_wikitext(self) -> bool:
        """Return whether the rows are lines of articles."""
        return self.kind == "hub" and self.place.endswith("/wikitext")

    def listing(self) -> Listing:
        """Return the files of a hub data set; the hub is asked the first time."""
        if self._listing is None:
            self._listing = list_files(self.hub)
        return self._listing

    def file_name(self, path: Path) -> str:
        """Return the name of one of `files` relative to the input folder."""
        root = Path(self.place)
        return path.relative_to(root).as_posix() if root.is_dir() else path.name

    def fingerprint(self) -> list[Any]:
        """Return what the content depends on; for local files, a hash of every byte."""
        if self.kind == "pydocs":
            from utils.data.builtin.pydocs import cache_key

            return [self.kind, cache_key(None)]
        if self.kind == "hub":
            return [self.kind, self.place, self.config, self.setting.input_split]
        return [self.kind, [[part.name, part.digest] for part in self.parts()]]

    def parts(self) -> list[FilePart]:
        """Return the parts of all files in order; every byte is read the first time."""
        if self._parts is None:
            self._parts = [
                part
                for path in self.files
                for part in split_file(path, self.file_name(path), file_kind(path))
            ]
        return self._parts


def find_sources(cfg: PrepareConfig) -> list[Source]:
    """Return all inputs of a preparation, without its own result. No network is used.

    Raises:
        DataError: as `find_source`.
    """
    return [find_source(setting, without=cfg.folder.expanduser()) for setting in cfg.sources]


def find_source(setting: MixtureSource, without: Path | None = None) -> Source:
    """Return the input that a setting names; local paths win over hub ids. No network is used.

    `without` is a folder below the input that is not read (the result of an earlier run).

    Raises:
        DataError: there is no such path and it cannot be a hub id, or nothing in it can be read.
    """
    if setting.input_path == BUILT_IN:
        return Source(setting, "pydocs", BUILT_IN)
    path = Path(setting.input_path).expanduser()
    if path.exists():
        return _local(setting, path, without)
    place, config = ALIASES.get(setting.input_path, (setting.input_path, setting.input_config))
    if HUB_ID.fullmatch(place) and Path(place).suffix not in KINDS and len(path.parts) < 3:
        return Source(setting, "hub", place, config)
    raise DataError(
        f"input_path {setting.input_path} not found: give a file, a folder, a hub data set such as "
        f"Salesforce/wikitext, or {BUILT_IN}"
    )


def _local(setting: MixtureSource, path: Path, without: Path | None) -> Source:
    source = Source(setting, "files", str(path.absolute()))
    if path.is_file():
        source.files = [path.absolute()]
        source.skipped = skipped_members(path, path.name)
        return source
    for file in _walk(path.absolute(), without):
        if is_supported(file):
            source.files.append(file)
            source.skipped += skipped_members(file, source.file_name(file))
        else:
            source.skipped.append(SkippedFile(source.file_name(file), file.suffix or "no suffix"))
    if not source.files:
        kinds = Counter(skipped.kind for skipped in source.skipped)
        found = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "no file"
        raise DataError(
            f"nothing to read in {path} ({found}): put in files of {' '.join(sorted(KINDS))} "
            "(each also .gz or .zst)"
        )
    return source


def _walk(folder: Path, without: Path | None) -> Iterator[Path]:
    """Yield the files below a folder in a fixed order, without hidden ones."""
    left_out = without.absolute() if without else None
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if name[0] != "." and Path(parent, name) != left_out
        )
        yield from (Path(parent, name) for name in sorted(names) if name[0] != ".")


def iter_source(source: Source, text_key: str = "text", num_workers: int | None = None) -> Records:
    """Yield what a source holds, at most `max_samples` documents of it.

    Raises:
        DataError: the hub cannot be reached or does not have the data set.
    """
    if source.kind == "pydocs":
        records = _pydocs(num_workers)
    elif source.kind == "hub":
        records = _hub(source, text_key)
    else:
        records = _files(source, text_key)
    limit = source.setting.max_samples
    documents = 0
    for record in records:
        yield record
        documents += isinstance(record, Document)
        if documents == limit:
            return


def fetch(source: Source, num_workers: int | None, download_workers: int = 1) -> None:
    """Do what a source needs once: extract the built-in corpus, find the files on the hub.

    Raises:
        DataError: the hub cannot be reached or does not have the data set.
    """
    source.download_workers = download_workers
    if source.kind == "pydocs":
        next(_pydocs(num_workers), None)
    elif source.kind == "hub":
        source.listing()


def iter_parts(source: Source) -> Iterator[FilePart] | None:
    """Return the parts of the files of a source in order, or None if it is a stream of documents.

    Files of the hub are brought here, several at a time, while the first are read.
    """
    if source.setting.max_samples is not None or source.is_wikitext:
        return None
    if source.kind == "files":
        return iter(source.parts())
    if source.kind == "hub" and source.listing().files:
        return _hub_parts(source)
    return None


def _pydocs(num_workers: int | None) -> Records:
    from utils.data.builtin.pydocs import pydocs_documents

    for row in pydocs_documents(num_workers=num_workers):
        yield Document(row["id"], row["text"], row["source"])


def _files(source: Source, text_key: str) -> Records:
    for path in source.files:
        yield from read_file(path, source.file_name(path), source.setting.name, text_key)


def _hub_parts(source: Source) -> Iterator[FilePart]:
    for file, path, _ in _fetched(source, len(source.listing().files)):
        yield from split_file(path, file.path, file_kind(Path(file.path)))


def _hub(source: Source, text_key: str) -> Records:
    """Yield the rows of a hub data set, from its files if it has plain ones."""
    listing = source.listing()
    name = source.setting.name
    if listing.files:
        records = _hub_files(source, text_key)
    else:
        records = stream_records(source.hub, listing.revision, name, text_key)
    return join_articles(records, name) if source.is_wikitext else records


def _hub_files(source: Source, text_key: str) -> Records:
    """Yield the rows of the files of a hub data set; no more are fetched than probably needed."""
    limit = source.setting.max_samples
    documents = 0
    first = 1 if limit else len(source.listing().files)
    for number, (file, path, downloads) in enumerate(_fetched(source, first), start=1):
        for record in read_file(path, file.path, source.setting.name, text_key):
            documents += isinstance(record, Document)
            yield record
        if limit is not None:
            downloads.wanted = ceil(number * limit / max(documents, 1))


def _fetched(source: Source, wanted: int) -> Iterator[tuple[RemoteFile, Path, Downloads]]:
    """Yield the files of a hub data set as they arrive; at first so many are wanted."""
    files = source.listing().files
    with Downloads(files, source.download_workers, wanted) as downloads, hub_errors(source.hub):
        for file, path in downloads:
            source.fetched.append(file)
            yield file, path, downloads


def source_files(sources: list[Source]) -> dict[str, Any]:
    """Return how many files are read and which kinds are left out, for the data card."""
    skipped = Counter(file.kind for source in sources for file in source.skipped)
    return {
        "read": sum(len(source.files) for source in sources),
        "skipped": dict(sorted(skipped.items())),
    }
