"""Files of the hub brought into its ordinary cache: in parallel, checked, resumed.

A part that a broken connection or a kill leaves is kept and gone on with (huggingface_hub 2.4
begins such files again). Knows nothing about what is in the files.
"""

import hashlib
import logging
import shutil
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from utils.disk import FULL, free_bytes
from utils.errors import DataError
from utils.log import Task, progress
from utils.stage import check_stop

CHUNK_BYTES = 1 << 20
ATTEMPTS = 5
"""Attempts without a single new byte after which a file is given up."""
PAUSE_S = 0.5
"""Before the second attempt; doubled each time."""
PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteFile:
    """One file of a data set, at one commit."""

    repository: str
    revision: str
    path: str
    size: int
    """Bytes."""
    digest: str
    """sha256 of the bytes (64 digits) or, of small files, git's sha1 of them (40)."""

    @property
    def folder(self) -> Path:
        """Return the folder of the data set in the cache."""
        return repository_folder(self.repository)

    @property
    def blob(self) -> Path:
        """Return where the content lies, whichever commits and names it has."""
        return self.folder / "blobs" / self.digest

    @property
    def partial(self) -> Path:
        """Return where content lies that is not whole yet."""
        return self.blob.with_name(f"{self.digest}.incomplete")

    def cached(self) -> Path | None:
        """Return where the file lies in the cache; None if it does not, or not whole."""
        path = self.folder / "snapshots" / self.revision / self.path
        return path if path.is_file() and path.stat().st_size == self.size else None


def repository_folder(repository: str) -> Path:
    """Return the folder of a data set in the hub's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"datasets--{repository.replace('/', '--')}"


class Downloads:
    """Yields (file, path) in the order of `files`, while up to `workers` of them are on their way.

    At most `wanted` files are begun ahead of being asked for; who learns that more are needed
    raises it.

    Raises:
        DataError: a file cannot be had; what is whole, or begun, stays in the cache.
        Interrupted: a stop was requested.
    """

    def __init__(self, files: tuple[RemoteFile, ...], workers: int, wanted: int) -> None:
        self.wanted = wanted
        self._files = files
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, "download")
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._task: Task | None = None

    def __enter__(self) -> Self:
        missing = [file for file in self._files if file.cached() is None]
        if missing:
            total = None
            if self.wanted >= len(self._files):
                total = sum(file.size - _size(file.partial) for file in missing) / 1e6
            name = f"downloading {self._files[0].repository}"
            self._task = self._stack.enter_context(progress(name, total, "MB"))
        return self

    def __exit__(self, *raised: object) -> None:
        self._closed.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._stack.close()

    def __iter__(self) -> Iterator[tuple[RemoteFile, Path]]:
        begun: deque[Future[Path]] = deque()
        for number, file in enumerate(self._files):
            end = min(len(self._files), max(self.wanted, number + 1), number + self._workers)
            for next_file in self._files[number + len(begun) : end]:
                begun.append(self._pool.submit(self._get, next_file))
            yield file, begun.popleft().result()

    def _get(self, file: RemoteFile) -> Path:
        """Return where a file lies in the cache, after it was brought there."""
        if (path := file.cached()) is not None:
            return path
        from huggingface_hub import constants, hf_hub_download
        from huggingface_hub.utils import WeakFileLock

        if constants.HF_HUB_OFFLINE:
            raise DataError(
                f"{file.path} of {file.repository} is not in the cache and HF_HUB_OFFLINE is set: "
                "unset it and run again"
            )
        lock = file.folder.parent / ".locks" / file.folder.name / f"{file.digest}.lock"
        for place in (lock, file.blob):
            place.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            if _size(file.blob) != file.size:
                self._fill(file)
                if not _is_whole(file):
                    file.partial.unlink()
                    raise DataError(
                        f"{file.path} of {file.repository} arrived with other bytes than the hub "
                        "says (sha differs): run it again to fetch that file anew"
                    )
                file.partial.replace(file.blob)
        return Path(
            hf_hub_download(file.repository, file.path, repo_type="dataset", revision=file.revision)
        )

    def _fill(self, file: RemoteFile) -> None:
        """Receive what is missing of a file, in several attempts if need be."""
        from huggingface_hub.utils import HfHubHTTPError, httpx

        attempt, before = 0, -1
        while True:
            _check_space(file)
            try:
                self._receive(file)
                return
            except (httpx.TransportError, HfHubHTTPError) as error:
                status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
                if status is not None and status not in PASSING_STATUS:
                    raise
                here = _size(file.partial)
                attempt = attempt + 1 if here == before else 1
                before = here
                reason = f"{file.path} broke off at {here / 1e6:.1f} of {file.size / 1e6:.1f} MB"
                kind = str(status or type(error).__name__)
                if attempt == ATTEMPTS:
                    raise DataError(
                        f"downloading {file.repository}: {reason} ({kind}, {ATTEMPTS} attempts): "
                        "run it again to go on from there"
                    ) from error
                log.warning("%s (%s): going on", reason, kind)
                self._closed.wait(PAUSE_S * 2 ** (attempt - 1))
                self._check()
            except OSError as error:
                if error.errno in FULL:
                    raise DataError(_no_space(file)) from error
                raise

    def _receive(self, file: RemoteFile) -> None:
        """Append what follows the part that is there."""
        from huggingface_hub import constants, get_session, hf_hub_url
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, httpx

        here = _size(file.partial)
        if here > file.size:
            file.partial.unlink()
            here = 0
        if here == file.size and file.partial.exists():
            return
        url = hf_hub_url(file.repository, file.path, repo_type="dataset", revision=file.revision)
        headers = build_hf_headers() | {"Accept-Encoding": "identity"}
        if here:
            headers["Range"] = f"bytes={here}-"
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
            hf_raise_for_status(response)
            with file.partial.open("ab" if response.status_code == 206 else "wb") as target:
                for chunk in response.iter_bytes(CHUNK_BYTES):
                    self._check()
                    self._store(target, chunk)
        if _size(file.partial) < file.size:
            raise httpx.RemoteProtocolError("the answer ended too early")

    def _store(self, target: BinaryIO, chunk: bytes) -> None:
        target.write(chunk)
        with self._lock:
            if self._task is not None:
                self._task.advance(len(chunk) / 1e6)

    def _check(self) -> None:
        """End this thread where nobody waits for it any more, or the user wants to stop."""
        check_stop()
        if self._closed.is_set():
            raise DataError("no longer wanted")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _is_whole(file: RemoteFile) -> bool:
    """Return whether what has arrived has the digest that the hub tells."""
    if len(file.digest) == 64:
        digest = hashlib.sha256()
    else:
        digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    with file.partial.open("rb") as data:
        while chunk := data.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest() == file.digest


def _check_space(file: RemoteFile) -> None:
    if shutil.disk_usage(file.blob.parent).free < file.size - _size(file.partial):
        raise DataError(_no_space(file))


def _no_space(file: RemoteFile) -> str:
    missing = file.size - _size(file.partial)
    return (
        f"no space for {file.path} of {file.repository} in {file.folder.parent}: "
        f"{missing / 1e6:.0f} MB needed, {free_bytes(file.blob) / 1e6:.0f} MB free: free some, set "
        "HF_HOME to another disk, or lower max_samples"
    )
