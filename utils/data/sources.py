"""Where documents come from: the hub, local files and folders, the built-in corpus.

Everything is streamed. Knows nothing about what happens to a document afterwards.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from utils.config.prepare import MixtureSource
from utils.data.pieces import Piece, file_pieces
from utils.data.readers import ARTICLE_TITLE, READERS, file_kind, is_supported, read_file
from utils.data.records import BadLine, Document, SkippedFile, row_id, row_text
from utils.errors import DataError

BUILT_IN = "pydocs"
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
HUB_TIMEOUT_S = 5
"""A hub that does not answer in this time is not waited for."""
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

Records = Iterator[Document | BadLine]
log = logging.getLogger(__name__)


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
    revision: str | None = None
    """Commit of a hub data set, known once it is read."""
    _pieces: list[Piece] | None = None

    @property
    def label(self) -> str:
        """What the data card calls it; a local place is named without its folder."""
        if self.kind == "files":
            return Path(self.place).name or "files"
        return f"{self.place} ({self.config})" if self.config else self.place

    def file_name(self, path: Path) -> str:
        """Return the name of one of `files` relative to the input folder."""
        root = Path(self.place)
        return path.relative_to(root).as_posix() if root.is_dir() else path.name

    def fingerprint(self) -> list[Any]:
        """Return what the content depends on; for local files, a hash of every byte."""
        if self.kind == "pydocs":
            from utils.data.pydocs import cache_key

            return [self.kind, cache_key(None)]
        if self.kind == "hub":
            return [self.kind, self.place, self.config, self.setting.input_split]
        return [self.kind, [[piece.name, piece.digest] for piece in self.pieces()]]

    def pieces(self) -> list[Piece]:
        """Return the pieces of all files in order; every byte is read the first time."""
        if self._pieces is None:
            self._pieces = [
                piece
                for path in self.files
                for piece in file_pieces(path, self.file_name(path), file_kind(path))
            ]
        return self._pieces


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
    if HUB_ID.fullmatch(place) and Path(place).suffix not in READERS and len(path.parts) < 3:
        return Source(setting, "hub", place, config)
    raise DataError(
        f"input_path {setting.input_path} not found: give a file, a folder, a hub data set such as "
        f"Salesforce/wikitext, or {BUILT_IN}"
    )


def _local(setting: MixtureSource, path: Path, without: Path | None) -> Source:
    source = Source(setting, "files", str(path.absolute()))
    if path.is_file():
        source.files = [path.absolute()]
        return source
    for file in _walk(path.absolute(), without):
        if is_supported(file):
            source.files.append(file)
        else:
            source.skipped.append(SkippedFile(source.file_name(file), file.suffix or "no suffix"))
    if not source.files:
        kinds = Counter(skipped.kind for skipped in source.skipped)
        found = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "no file"
        raise DataError(
            f"nothing to read in {path} ({found}): put in files of {' '.join(sorted(READERS))} "
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


def fetch(source: Source, num_workers: int | None) -> None:
    """Do what a source needs once before it can be read: extract the built-in corpus."""
    if source.kind == "pydocs":
        next(_pydocs(num_workers), None)


def _pydocs(num_workers: int | None) -> Records:
    from utils.data.pydocs import pydocs_documents

    for row in pydocs_documents(num_workers=num_workers):
        yield Document(row["id"], row["text"], row["source"])


def _files(source: Source, text_key: str) -> Records:
    for path in source.files:
        yield from read_file(path, source.file_name(path), source.setting.name, text_key)


def _hub(source: Source, text_key: str) -> Records:
    """Stream a hub data set; offline (HF_HUB_OFFLINE) the local cache is used instead."""
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(HUB_TIMEOUT_S))
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", str(2 * HUB_TIMEOUT_S))
    import datasets
    from datasets.exceptions import DatasetsError
    from huggingface_hub import constants
    from huggingface_hub.utils import httpx

    failures = (OSError, ValueError, RuntimeError, httpx.HTTPError, DatasetsError)
    datasets.disable_progress_bars()
    number = 0
    try:
        if not constants.HF_HUB_OFFLINE:
            source.revision = _hub_revision(source.place)
        rows = datasets.load_dataset(
            source.place,
            source.config,
            split=source.setting.input_split,
            revision=source.revision,
            streaming=not constants.HF_HUB_OFFLINE,
        )
        if source.place.endswith("/wikitext"):
            rows = _wikitext_articles(rows)
        for number, row in enumerate(rows, start=1):
            yield _hub_record(row, number, source.setting.name, text_key)
    except failures as error:
        raise DataError(_hub_message(source, number, error)) from error


def _hub_revision(place: str) -> str | None:
    """Return the newest commit; a hub that cannot be reached fails here, in seconds."""
    from huggingface_hub import HfApi

    return HfApi().dataset_info(place, timeout=HUB_TIMEOUT_S).sha


def _hub_message(source: Source, rows: int, error: Exception) -> str:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    reason = (" ".join(str(error).split()) or type(error).__name__)[:160].rstrip(" .:")
    name = source.label
    if isinstance(error, GatedRepoError):
        return f"hub data set {name} is gated: accept its terms and set HF_TOKEN"
    if isinstance(error, RepositoryNotFoundError):
        return f"the hub has no data set {name}, and there is no such path here: check the spelling"
    if rows:
        return f"reading hub data set {name} broke off after {rows} rows ({reason}): run it again"
    return (
        f"cannot load hub data set {name} ({reason}): check the connection, or use local files "
        f"(--input_path FOLDER, make prepare SRC=FOLDER) or --input_path {BUILT_IN}"
    )


def _hub_record(row: Any, number: int, name: str, text_key: str) -> Document | BadLine:
    try:
        return Document(row_id(row, f"{name}:{number}"), row_text(row, text_key), name)
    except ValueError as error:
        return BadLine(name, number, str(error))


def _wikitext_articles(rows: Any) -> Iterator[dict[str, str]]:
    """Join the rows of WikiText, which are lines, to articles."""
    lines: list[str] = []
    for row in rows:
        if ARTICLE_TITLE.fullmatch(row["text"].rstrip("\n")) and lines:
            yield {"text": "".join(lines)}
            lines = []
        lines.append(row["text"] if row["text"].endswith("\n") else row["text"] + "\n")
    if lines:
        yield {"text": "".join(lines)}


def source_files(sources: list[Source]) -> dict[str, Any]:
    """Return how many files are read and which kinds are left out, for the data card."""
    skipped = Counter(file.kind for source in sources for file in source.skipped)
    return {
        "read": sum(len(source.files) for source in sources),
        "skipped": dict(sorted(skipped.items())),
    }
