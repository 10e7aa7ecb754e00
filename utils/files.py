"""Files that are there whole or not at all: atomic writes and hashed folders.

The protocol for a folder: write into `.tmp-NAME` beside it, fsync every file, write manifest.json
with size and sha256 of each, fsync the folder, rename, fsync the parent. A reader that finds NAME
therefore finds all of it, and `verify_folder` tells when a bit has flipped since.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from utils.disk import disk_errors, fsync_path, make_folder
from utils.errors import CheckpointError, DataError, LumiError

MANIFEST = "manifest.json"
"""Name of the file that lists size and sha256 of the other files of a folder."""

log = logging.getLogger(__name__)


def read_json(path: Path) -> Any:
    """Return the parsed content of a JSON file.

    Raises:
        DataError: the file is missing or is not JSON (the message names line and column).
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} not found: check the path") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check the path") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}): save it again") from error
    except json.JSONDecodeError as error:
        place = f"{path}:{error.lineno}:{error.colno}"
        raise DataError(f"{place}: not valid JSON ({error.msg}): correct that line") from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, deep nesting
        raise DataError(
            f"{path}: not a JSON file Lumi wrote ({error}): use another file"
        ) from error


def to_json(value: object) -> str:
    """Return `value` as indented JSON with sorted keys, so that equal values are equal bytes."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=str) + "\n"


def sha256_bytes(data: bytes) -> str:
    """Return the sha256 of `data` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(value: object) -> str:
    """Return 16 hexadecimal digits that identify a JSON-like value (settings, a list of files)."""
    return sha256_bytes(to_json(value).encode())[:16]


def write_atomic(path: Path, data: bytes | str, *, durable: bool = True) -> None:
    """Write one file so that a reader sees the old or the new content, never a part.

    Without `durable` a loss of power may still damage it: for files that are checked when read.

    Raises:
        LumiError: the disk is full or the folder is not writable; the old content stays.
    """
    partial = path.with_name(f".tmp-{path.name}")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        if durable:
            fsync_path(path.parent)


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON with sorted keys, atomically."""
    write_atomic(path, to_json(value))


def append_line(path: Path, record: object) -> None:
    """Append one JSON record as a line and hand it to the system (a torn last line is fine)."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, sort_keys=True, ensure_ascii=False, default=str) + "\n")


def read_lines(path: Path) -> list[Any]:
    """Return the records that `append_line` wrote; a torn last line is left out."""
    records: list[Any] = []
    if not path.is_file():
        return records
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


@contextmanager
def atomic_folder(target: Path, **manifest: object) -> Iterator[Path]:
    """Yield an empty folder that becomes `target`, with its manifest, when the block succeeds.

    `manifest` are further keys of manifest.json beside `files`. On an error nothing of it stays and
    an older `target` is untouched; on success the older one is removed after the new one is there.

    Raises:
        LumiError: the disk is full or not writable.
    """
    partial = target.with_name(f".tmp-{target.name}")
    with disk_errors(target):
        remove_folder(partial)
        make_folder(partial.parent)
        try:
            partial.mkdir()
            yield partial
            write_manifest(partial, **manifest)
            _swap(partial, target)
        except BaseException:
            recover_folder(target)
            raise


def write_manifest(folder: Path, **manifest: object) -> None:
    """Write manifest.json over every file below `folder`, everything forced to the disk."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        fsync_path(path)
        name = path.relative_to(folder).as_posix()
        files[name] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    write_atomic(folder / MANIFEST, to_json({"format": 1, **manifest, "files": files}))
    for child in [path for path in folder.rglob("*") if path.is_dir()] + [folder]:
        fsync_path(child)


def remove_folder(folder: Path) -> None:
    """Remove a folder, or a link to one; what an error leaves of it is tried once more."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.is_dir():
        try:
            shutil.rmtree(folder)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _swap(partial: Path, target: Path) -> None:
    """Put `partial` in the place of `target`, which may exist."""
    old = target.with_name(f".old-{target.name}")
    remove_folder(old)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    fsync_path(target.parent)
    remove_folder(old)


def recover_folder(target: Path) -> None:
    """Finish or undo a swap that a crash cut in two (only `.old-NAME` is left of `target`)."""
    old = target.with_name(f".old-{target.name}")
    if old.is_dir() and not target.exists():
        old.rename(target)
    remove_folder(old)
    remove_folder(target.with_name(f".tmp-{target.name}"))


def folder_damage(folder: Path, *, hashes: bool = True) -> str | None:
    """Return what is wrong with a folder (file and reason) or None.

    Without `hashes` only sizes are compared.
    """
    if not (folder / MANIFEST).is_file():
        return f"{folder}: {MANIFEST} is missing"
    try:
        files = read_json(folder / MANIFEST)["files"]
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in files.items()}
    except (DataError, KeyError, TypeError, AttributeError):
        return f"{folder / MANIFEST}: damaged"
    for name, (size, sha256) in expected.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            return f"{folder / MANIFEST}: damaged (it names {name!r}, which is not in the folder)"
        if damage := _file_damage(folder / name, size, sha256 if hashes else None):
            return f"{folder / name}: {damage}"
    return None


def _file_damage(path: Path, size: object, sha256: object | None) -> str | None:
    try:
        if not path.is_file():
            return "missing"
        if path.stat().st_size != size:
            return f"{path.stat().st_size} bytes instead of {size}"
        is_same = sha256 is None or sha256_file(path) == sha256
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if is_same else f"sha256 differs from {MANIFEST} (a changed or flipped byte)"


def verify_folder(folder: Path) -> None:
    """Check a folder against its manifest.

    Raises:
        CheckpointError: a file is missing or changed; the message names it.
    """
    if damage := folder_damage(folder):
        raise CheckpointError(f"{damage}: use another checkpoint or make it again")


def move_aside(folder: Path) -> Path | None:
    """Rename an existing folder to NAME.<date> so that a new run cannot write over it.

    Raises:
        LumiError: a file has its name.
    """
    if folder.is_file():
        raise LumiError(f"{folder} is a file: choose another --output_dir")
    if not folder.exists() or not any(folder.iterdir()):
        return None
    stem = f"{folder.name}.{datetime.now():%Y%m%d-%H%M%S}"
    names = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
    aside = next(path for name in names if not (path := folder.with_name(name)).exists())
    folder.rename(aside)
    log.warning("%s holds an earlier run: moved aside to %s", folder, aside)
    return aside


def is_moved_aside(folder: Path) -> bool:
    """Return whether a folder has the name that `move_aside` gives."""
    return re.search(r"\.\d{8}-\d{6}(-\d+)?$", folder.name) is not None
