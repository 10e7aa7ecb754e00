"""Data sets of the hub: their files at a commit, or their rows where they are no plain files.

Knows nothing about how the files are brought here (`utils.reading.downloads`) and read.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from itertools import count
from pathlib import Path
from typing import Any

from utils.disk import FULL
from utils.errors import DataError
from utils.files import fingerprint, to_json, write_atomic
from utils.reading.documents import BadLine, Document, Records, row_id, row_text
from utils.reading.downloads import RemoteFile, repository_folder
from utils.reading.formats import ARTICLE_TITLE
from utils.reading.readers import is_supported

HUB_TIMEOUT_S = 5
"""A hub that does not answer in this time is not waited for."""
PATHS_PER_REQUEST = 500
ASIDE = {"name", "version", "data_dir", "data_files", "description", "features"}
"""Fields of the library's configurations that do not change how a file is read."""


@dataclass(frozen=True)
class HubSet:
    """A data set by name."""

    place: str
    """owner/name."""
    config: str | None
    split: str

    @property
    def label(self) -> str:
        """What messages and the data card call it."""
        return f"{self.place} ({self.config})" if self.config else self.place


@dataclass(frozen=True)
class Listing:
    """A data set at one commit."""

    revision: str | None
    """The commit; None where only the library's own cache can be read."""
    files: tuple[RemoteFile, ...]
    """Those of the split, in reading order; empty where they are no plain files of text."""


def list_files(dataset: HubSet) -> Listing:
    """Return the newest commit of a data set and the files of its split; offline, those known.

    Raises:
        DataError: the hub cannot be reached or does not have the data set, or not for everybody.
    """
    with hub_errors(dataset):
        from huggingface_hub import HfApi, constants

        place = _listing_path(dataset)
        if constants.HF_HUB_OFFLINE:
            return _read_listing(place) if place.is_file() else Listing(None, ())
        revision = HfApi().dataset_info(dataset.place, timeout=HUB_TIMEOUT_S).sha
        assert revision is not None, dataset
        listing = Listing(revision, _split_files(dataset, revision))
        if listing.files:
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(place, to_json(asdict(listing)))
        return listing


def _split_files(dataset: HubSet, revision: str) -> tuple[RemoteFile, ...]:
    import datasets
    from huggingface_hub import HfApi, RepoFile

    config = datasets.load_dataset_builder(dataset.place, dataset.config, revision=revision).config
    splits = {str(name): urls for name, urls in (config.data_files or {}).items()}
    start = f"hf://datasets/{dataset.place}@{revision}/"
    urls = splits.get(dataset.split, [])
    if splits and not urls:
        raise DataError(
            f"hub data set {dataset.label} has no split {dataset.split}: set --input_split to one "
            f"of {', '.join(splits)}"
        )
    paths = [url.removeprefix(start) for url in urls]
    plain = all(url.startswith(start) and is_supported(Path(url)) for url in urls)
    if not plain or _is_read_in_its_own_way(config):
        return ()
    info = {
        entry.path: entry
        for begin in range(0, len(paths), PATHS_PER_REQUEST)
        for entry in HfApi().get_paths_info(
            dataset.place, paths[begin : begin + PATHS_PER_REQUEST],
            revision=revision, repo_type="dataset",
        )
        if isinstance(entry, RepoFile)
    }  # fmt: skip
    found = [info[path] for path in paths]
    return tuple(
        RemoteFile(
            dataset.place, revision, file.path, file.size,
            file.lfs.sha256 if file.lfs else file.blob_id,
        )
        for file in found
    )  # fmt: skip


def _is_read_in_its_own_way(config: Any) -> bool:
    """Return whether the data set tells how its files are to be read (a separator, a field)."""
    usual = type(config)()
    return any(
        getattr(config, field.name) != getattr(usual, field.name)
        for field in fields(config)
        if field.name not in ASIDE
    )


def _listing_path(dataset: HubSet) -> Path:
    """Return where the list of files is kept, beside them, for runs without the hub."""
    name = fingerprint([dataset.config, dataset.split])
    return repository_folder(dataset.place) / f"lumi-{name}.json"


def _read_listing(place: Path) -> Listing:
    content = json.loads(place.read_text(encoding="utf-8"))
    return Listing(content["revision"], tuple(RemoteFile(**file) for file in content["files"]))


def stream_records(dataset: HubSet, revision: str | None, name: str, text_key: str) -> Records:
    """Yield the rows of a data set through its library; offline, from the library's cache.

    `name` is that of the source, for the documents.

    Raises:
        DataError: the hub or the data set cannot be read.
    """
    with hub_errors(dataset):
        import datasets
        from huggingface_hub import constants

        rows = iter(
            datasets.load_dataset(
                dataset.place, dataset.config, split=dataset.split, revision=revision,
                streaming=not constants.HF_HUB_OFFLINE,
            )
        )  # fmt: skip
    for number in count():
        with hub_errors(dataset, number):
            row = next(rows, None)
        if row is None:
            return
        yield _record(row, number + 1, name, text_key)


def _record(row: Any, number: int, name: str, text_key: str) -> Document | BadLine:
    try:
        return Document(row_id(row, f"{name}:{number}"), row_text(row, text_key), name)
    except ValueError as error:
        return BadLine(name, number, str(error))


def join_articles(records: Records, name: str) -> Records:
    """Join the rows of WikiText, which are lines, to articles."""
    lines: list[str] = []
    articles = 0
    for record in records:
        if isinstance(record, BadLine):
            yield record
            continue
        if ARTICLE_TITLE.fullmatch(record.text.rstrip("\n")) and lines:
            articles += 1
            yield Document(f"{name}:{articles}", "".join(lines), name)
            lines = []
        lines.append(record.text if record.text.endswith("\n") else record.text + "\n")
    if lines:
        yield Document(f"{name}:{articles + 1}", "".join(lines), name)


@contextmanager
def hub_errors(dataset: HubSet, rows: int = 0) -> Iterator[None]:
    """Turn what can go wrong with the hub, after so many rows, into one line.

    Raises:
        DataError: always in that case.
    """
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(HUB_TIMEOUT_S))
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", str(2 * HUB_TIMEOUT_S))
    from datasets import disable_progress_bars
    from datasets.exceptions import DatasetsError
    from huggingface_hub import utils
    from huggingface_hub.utils import httpx

    disable_progress_bars()
    utils.disable_progress_bars()
    utils.logging.set_verbosity_error()
    try:
        yield
    except (OSError, ValueError, RuntimeError, httpx.HTTPError, DatasetsError) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        raise DataError(_message(dataset, rows, error)) from error


def _message(dataset: HubSet, rows: int, error: BaseException) -> str:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    name = dataset.label
    reason = (" ".join(str(error).split()) or type(error).__name__)[:160].rstrip(" .:")
    causes = _causes(error)
    # The data set library hides the error of the hub behind one of its own.
    if any(isinstance(cause, GatedRepoError) for cause in causes) or "is a gated" in reason:
        return f"hub data set {name} is gated: accept its terms and set HF_TOKEN"
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return f"the hub has no data set {name}, and there is no such path here: check the spelling"
    if "BuilderConfig" in reason:
        return f"hub data set {name}: {reason}: set --input_config to one of these"
    if rows:
        return f"reading hub data set {name} broke off after {rows} rows ({reason}): run it again"
    kept = _listing_path(dataset).is_file()
    return (
        f"cannot load hub data set {name} ({reason}): check the connection, "
        f"{'set HF_HUB_OFFLINE=1 to read what was fetched before, ' if kept else ''}"
        "or use local files (--input_path FOLDER, make prepare SRC=FOLDER) or --input_path pydocs"
    )


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
