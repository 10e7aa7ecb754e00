"""The disk below our files: what is free, what is forced out, and its errors in one line."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from utils.errors import LumiError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_WRITABLE = (
    errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG,
)  # fmt: skip


def fsync_path(path: Path) -> None:
    """Force a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(place: Path) -> int:
    """Return the free bytes of the file system that holds `place` or its first existing parent."""
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Turn a full disk or an impossible path while writing below `place` into one line.

    Raises:
        LumiError: with the free space in MB, or the system's reason.
    """
    try:
        yield
    except SafetensorError as error:  # wraps the system's error into text
        if "os error 28" not in str(error) and "No space" not in str(error):
            raise
        raise LumiError(_full(place)) from error
    except OSError as error:
        if error.errno in FULL:
            raise LumiError(_full(place)) from error
        if error.errno in NOT_WRITABLE:
            reason = f"cannot write {place}: {error.strerror}: choose another --output_dir"
            raise LumiError(reason) from error
        raise


def _full(place: Path) -> str:
    free_mb = free_bytes(place) / 1e6
    return f"disk full while writing {place} ({free_mb:.0f} MB free): free some space and run again"
