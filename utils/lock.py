"""One writer per folder: a lock file beside it, which the system lets go of with its process.

The file names its holder (pid, host, birth) for messages and for other hosts, which may not see the
system's lock. Children of the holder do not inherit it. Where the file system knows no locks the
holder's name alone decides. Knows nothing about what is written.
"""

import errno
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import psutil
from filelock import FileLock, Timeout

from utils.disk import disk_errors
from utils.errors import DataError, LumiError
from utils.files import read_json, to_json

WAIT_S = 0.5
"""A holder that is about to end is waited for this long."""
DRIFT_S = 2.0
"""The system's idea of when it booted, from which births are counted, may drift by this much."""
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""Errors of a file system without locks, such as some mounts of NFS and Lustre."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Owner:
    """The process that writes a folder or runs a session."""

    pid: int
    host: str
    born: float
    """When the process was started (Unix seconds)."""

    @classmethod
    def this_process(cls) -> Self:
        """Return the owner that this process is."""
        return cls(os.getpid(), socket.gethostname(), psutil.Process().create_time())

    @classmethod
    def read(cls, record: Any) -> Self | None:
        """Return the owner that a JSON object names, or None where it names none."""
        if not isinstance(record, Mapping):
            return None
        try:
            return cls(int(record["pid"]), str(record["host"]), float(record["born"]))
        except (KeyError, TypeError, ValueError):
            return None

    @property
    def is_here(self) -> bool:
        """Whether it runs, or ran, on this host."""
        return self.host == socket.gethostname()

    @property
    def is_alive(self) -> bool:
        """Whether its process is there; one of another host counts as there."""
        if not self.is_here:
            return True
        try:
            return abs(psutil.Process(self.pid).create_time() - self.born) <= DRIFT_S
        except (psutil.Error, ValueError):
            return False


def lock_owner(lock: Path) -> Owner | None:
    """Return the owner that a lock file names; None for a missing or torn file."""
    try:
        return Owner.read(read_json(lock))
    except DataError:
        return None


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Hold the lock `.lock-NAME` beside `folder`; that of a process that is gone is taken over.

    Raises:
        LumiError: another living process writes into `folder` (its pid and host are named).
    """
    lock = folder.with_name(f".lock-{folder.name}")
    held = FileLock(lock, timeout=WAIT_S, fallback_to_soft=False)
    try:
        with disk_errors(lock):
            lock.parent.mkdir(parents=True, exist_ok=True)
            _acquire(held, folder, lock)
            _refuse_living_owner(folder, lock)
            lock.write_text(to_json(asdict(Owner.this_process())), encoding="utf-8")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)  # while it is held: who waits for it makes a new one
    finally:
        held.release()


def _acquire(held: FileLock, folder: Path, lock: Path) -> None:
    """Take the system's lock where the file system knows one.

    Raises:
        LumiError: another process of this host holds it.
    """
    try:
        held.acquire()
    except Timeout as error:
        raise _refusal(folder, lock, lock_owner(lock)) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        log.info("%s: no locks on this file system, so who is named in the file counts", lock)


def _refuse_living_owner(folder: Path, lock: Path) -> None:
    """Check who is named in a lock file that the system does not hold.

    Raises:
        LumiError: a living process of this host, or one of another host.
    """
    owner = lock_owner(lock)
    if owner is None or (owner.is_here and owner.pid == os.getpid()):
        return
    if owner.is_alive:
        raise _refusal(folder, lock, owner)
    log.warning("taking over the lock of process %d (%s): gone", owner.pid, lock)


def _refusal(folder: Path, lock: Path, owner: Owner | None) -> LumiError:
    who = f"process {owner.pid} on {owner.host}" if owner else "another process"
    return LumiError(
        f"{folder} is being written by {who}: wait for it, stop it, choose another --output_dir, "
        f"or remove {lock} if that process is gone"
    )
