"""The disk below our files: what is free, what is forced out, and its errors in one line."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from utils.errors import DiskFull, LumiError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_WRITABLE = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR,
    errno.ENAMETOOLONG,
)  # fmt: skip
REMEDIES = {
    **dict.fromkeys(NOT_WRITABLE, "choose another --output_dir"),
    errno.EIO: "look for a failing disk in the system's log, or choose another --output_dir",
    errno.EMFILE: "raise the limit of open files (`ulimit -n 4096`) and run again",
    errno.ENFILE: "close programs that hold many files open and run again",
}
"""What to do about an error of the system; one that is not here is ours."""


def fsync_path(path: Path) -> None:
    """Force a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make `folder` with its missing parents; their names survive a loss of power."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir()
        fsync_path(place.parent)


def free_bytes(place: Path) -> int:
    """Return the free bytes of the file system that holds `place` or its first existing parent."""
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


@contextmanager
def disk_errors(
    place: Path, needed_bytes: Callable[[], int | None] | None = None
) -> Iterator[None]:
    """Turn a full or failing disk or an impossible path below `place` into one line.

    `needed_bytes` estimates what the whole job still needs, or returns None.

    Raises:
        DiskFull: with the free and the needed space in MB.
        LumiError: with the system's reason.
    """
    try:
        yield
    except DiskFull as error:
        if needed_bytes is None:
            raise
        raise DiskFull(_full(place, needed_bytes)) from error
    except SafetensorError as error:  # wraps the system's error into text
        if "os error 28" not in str(error) and "No space" not in str(error):
            raise
        raise DiskFull(_full(place, needed_bytes)) from error
    except OSError as error:
        if error.errno in FULL:
            raise DiskFull(_full(place, needed_bytes)) from error
        if error.errno in REMEDIES:
            reason = f"cannot write {place}: {error.strerror}: {REMEDIES[error.errno]}"
            raise LumiError(reason) from error
        raise


def _full(place: Path, needed_bytes: Callable[[], int | None] | None) -> str:
    space = f"{free_bytes(place) / 1e6:.0f} MB free"
    needed = needed_bytes() if needed_bytes is not None else None
    if needed is not None:
        space += f", about {max(needed, 0) / 1e6 + 1:.0f} MB needed"
    return f"disk full while writing {place} ({space}): free some space and run again"
