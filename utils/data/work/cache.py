"""Results of steps on disk, each under a name that tells all it depends on; found again later.

A result is NAME.safetensors (its arrays) and NAME.json: the sha256 of the line that follows, and in
that line size and sha256 of the arrays and a record of the caller's; it is written last. After a
crash a result is there whole or not at all, and one whose bytes are not those (a loss of power, a
flipped byte) is made again, so nothing waits for the disk. Knows nothing about what is stored.
"""

import json
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from safetensors import safe_open
from safetensors.numpy import save

from utils.files import sha256_bytes, sha256_file, write_atomic

ARRAYS, RECORD = ".safetensors", ".json"
OPEN_FILES = 16


def array_digest(*arrays: np.ndarray) -> str:
    """Return a hash of the bytes of arrays, for the name of a result."""
    digest = xxhash.xxh3_128()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


class Stored:
    """Arrays of one result, read from the disk when they are asked for."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a whole array."""
        return self._handle.get_tensor(name)

    def names(self) -> list[str]:
        """Return the names of the arrays."""
        return list(self._handle.keys())

    def part(self, name: str, place: int | slice) -> np.ndarray:
        """Return array[place] without reading the rest."""
        return self._handle.get_slice(name)[place]


@lru_cache(maxsize=OPEN_FILES)
def _opened(path: Path) -> Stored:
    return Stored(safe_open(path, framework="numpy"))


class ResultCache:
    """A folder of results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: str, arrays: Mapping[str, np.ndarray], record: object) -> None:
        """Write a result; one of the same name is replaced.

        Raises:
            LumiError: the disk is full or not writable.
        """
        data = save({key: np.ascontiguousarray(array) for key, array in arrays.items()})
        _opened.cache_clear()
        write_atomic(self._path(name, ARRAYS), data, durable=False)
        content = json.dumps([len(data), sha256_bytes(data), record], sort_keys=True)
        entry = f"{sha256_bytes(content.encode())}\n{content}"
        write_atomic(self._path(name, RECORD), entry, durable=False)

    def has(self, name: str) -> bool:
        """Return whether a result is there, whole and unchanged; a damaged one is forgotten."""
        path, record = self._path(name, ARRAYS), self._path(name, RECORD)
        try:
            check, _, content = record.read_bytes().partition(b"\n")
            good = sha256_bytes(content) == check.decode("ascii", "replace")
            if good:
                size, sha256, _ = json.loads(content)
                good = path.stat().st_size == size and sha256_file(path) == sha256
        except OSError:
            good = False
        if not good:
            record.unlink(missing_ok=True)
        return good

    def record(self, name: str) -> Any:
        """Return the record of a result."""
        return json.loads(self._path(name, RECORD).read_bytes().partition(b"\n")[2])[2]

    def arrays(self, name: str) -> Stored:
        """Return the arrays of a result; the files used last stay open."""
        return _opened(self._path(name, ARRAYS))

    def tidy(self) -> None:
        """Remove what a crash left half written."""
        for path in self.folder.glob(".tmp-*"):
            path.unlink()

    def sweep(self, wanted: Collection[str]) -> None:
        """Remove all but the results of these names, and what a crash left half written."""
        files = {name + ending for name in wanted for ending in (ARRAYS, RECORD)}
        for path in self.folder.iterdir():
            if path.name not in files:
                path.unlink()

    def size(self) -> int:
        """Return the bytes of all results."""
        return sum(path.stat().st_size for path in self.folder.glob("*"))

    def _path(self, name: str, ending: str) -> Path:
        return self.folder / (name + ending)
