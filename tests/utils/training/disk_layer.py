"""A layer between our code and the file system: records each operation, fails or kills at one.

`PowerLoss` replays a record and yields the disks that a loss of power may leave: what was not
forced out is there, or not, or torn, each folder and file for itself.
"""

import builtins
import errno
import io
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

MUTATING = ("rename", "replace", "unlink", "rmdir", "mkdir", "link")


class Killed(BaseException):
    """The process is gone: no operation does anything any more."""


class DiskLayer:
    """Sees every operation below `root`; `at` is called with its number before it is done."""

    def __init__(self, root: Path, at: Callable[[int, tuple], None] = lambda number, op: None):
        self.root, self.at = str(root), at
        self.log: list[tuple] = []

    def seen(self, name: str, *paths, data: bytes = b"", dir_fd: int | None = None) -> None:
        places = [self._full(path, dir_fd) for path in paths]
        if places[0].startswith(self.root):
            op = (name, *places, data)
            self.log.append(op)
            self.at(len(self.log) - 1, op)

    @staticmethod
    def _full(path, dir_fd: int | None) -> str:
        if isinstance(path, int):
            return str(Path(f"/proc/self/fd/{path}").readlink())
        if dir_fd is not None:
            return str(Path(f"/proc/self/fd/{dir_fd}").readlink() / os.fspath(path))
        return os.fspath(path)

    @contextmanager
    def __call__(self, monkeypatch) -> Iterator["DiskLayer"]:
        real_open, real_os_open = io.open, os.open
        with monkeypatch.context() as patch:

            def opened(path, mode="r", *args, **options):
                if isinstance(path, int) or not os.fspath(path).startswith(self.root):
                    return real_open(path, mode, *args, **options)
                writing = any(letter in mode for letter in "wax+")
                self.seen("create" if writing else "open", path)
                file = real_open(path, mode, *args, **options)
                return Recorded(file, str(path), self) if writing else file

            def os_opened(path, flags, mode=0o777, *, dir_fd=None):
                self.seen("open", path, dir_fd=dir_fd)
                return real_os_open(path, flags, mode, dir_fd=dir_fd)

            patch.setattr(io, "open", opened)
            patch.setattr(builtins, "open", opened)
            patch.setattr(os, "open", os_opened)
            patch.setattr(os, "fsync", lambda place: self.seen("fsync", self._descriptor(place)))
            for name in MUTATING:
                patch.setattr(os, name, self._wrapped(name, getattr(os, name)))
            yield self

    @staticmethod
    def _descriptor(place) -> int:
        return place if isinstance(place, int) else place.fileno()

    def _wrapped(self, name, real):
        two = name in ("rename", "replace", "link")

        def call(path, *args, dir_fd=None, **options):
            paths = (path, args[0]) if two else (path,)
            self.seen("rename" if name == "replace" else name, *paths, dir_fd=dir_fd)
            kept = options if dir_fd is None else {**options, "dir_fd": dir_fd}
            return real(path, *args, **kept)

        return call


class Recorded:
    """A file opened for writing."""

    def __init__(self, file, path: str, layer: DiskLayer) -> None:
        self.file, self.path, self.layer = file, path, layer

    def write(self, data) -> int:
        whole = data.encode() if isinstance(data, str) else bytes(data)
        try:
            self.layer.seen("write", self.path, data=whole)
        except Killed:
            self.file.write(data[: len(data) // 2])  # torn
            self.file.flush()
            raise
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


def kill_at(number: int) -> Callable[[int, tuple], None]:
    def at(current: int, _: tuple) -> None:
        if current >= number:
            raise Killed

    return at


def fail_at(number: int, code: int) -> Callable[[int, tuple], None]:
    def at(current: int, op: tuple) -> None:
        if current == number:
            raise OSError(code, os.strerror(code), op[1])

    return at


ERRORS = (errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EACCES)


# --- loss of power ------------------------------------------------------------------------------


@dataclass(eq=False)
class File:
    data: bytes = b""
    synced: bytes = b""


@dataclass(eq=False)
class Folder:
    entries: dict = field(default_factory=dict)
    durable: dict = field(default_factory=dict)
    pending: list = field(default_factory=list)

    def change(self, *changes) -> None:
        """Set names to nodes (None: gone) at once."""
        self._apply(self.entries, changes)
        self.pending.append(changes)

    @staticmethod
    def _apply(entries: dict, changes) -> None:
        for name, node in changes:
            entries.pop(name, None)
            if node is not None:
                entries[name] = node

    def after(self, applied: int) -> dict:
        """The entries when the first `applied` changes since the last fsync arrived."""
        entries = dict(self.durable)
        for changes in self.pending[:applied]:
            self._apply(entries, changes)
        return entries


def read_tree(place: Path) -> Folder:
    folder = Folder()
    for path in place.iterdir():
        node = read_tree(path) if path.is_dir() else File(*[path.read_bytes()] * 2)
        folder.entries[path.name] = node
    folder.durable = dict(folder.entries)
    return folder


@dataclass
class PowerLoss:
    """The disk below `root`, operation by operation."""

    root: Path
    tree: Folder = field(init=False)

    def __post_init__(self) -> None:
        self.tree = read_tree(self.root)

    def _parent(self, path: str) -> tuple[Folder, str]:
        *folders, name = Path(path).relative_to(self.root).parts
        node = self.tree
        for part in folders:
            node = node.entries[part]
        return node, name

    def _node(self, path: str):
        if Path(path) == self.root:
            return self.tree
        parent, name = self._parent(path)
        return parent.entries[name]

    def do(self, op: tuple) -> None:
        kind, path, data = op[0], op[1], op[-1]
        if kind == "open":
            return
        if kind == "write":
            self._node(path).data += data
        elif kind == "fsync":
            self._sync(self._node(path))
        else:
            parent, name = self._parent(path)
            if kind == "rename":
                there, target = self._parent(op[2])
                assert there is parent
                parent.change((name, None), (target, parent.entries[name]))
            elif kind == "link":
                there, target = self._parent(op[2])
                there.change((target, parent.entries[name]))
            elif kind == "create" and name in parent.entries:
                parent.entries[name].data = b""
            elif kind == "mkdir" and name in parent.entries:
                return  # it was there, which the caller allows
            else:
                made = {"mkdir": Folder, "create": File}.get(kind, lambda: None)()
                parent.change((name, made))

    @staticmethod
    def _sync(node) -> None:
        if isinstance(node, File):
            node.synced = node.data
        else:
            node.durable, node.pending = dict(node.entries), []

    def disks(self, chance: random.Random) -> Iterator[dict[str, bytes]]:
        """Yield what may be found when the power is back, as path -> bytes."""
        files = (lambda f: f.data, lambda f: f.synced, half, zeros)
        for data in files:
            for share in (0, 1):
                yield dict(walk(self.tree, lambda d, share=share: share * len(d.pending), data))
        for _ in range(6):
            yield dict(
                walk(
                    self.tree,
                    lambda d: chance.randint(0, len(d.pending)),
                    lambda f: chance.choice(files)(f),
                )
            )


def half(file: File) -> bytes:
    return file.data[: max(len(file.synced), len(file.data) // 2)]


def zeros(file: File) -> bytes:
    return file.synced + bytes(len(file.data) - len(file.synced))


def walk(folder: Folder, applied, data, prefix: str = "") -> Iterator[tuple[str, bytes | None]]:
    """Yield (path, bytes), and (path, None) for each folder."""
    for name, node in folder.after(applied(folder)).items():
        if isinstance(node, Folder):
            yield prefix + name, None
            yield from walk(node, applied, data, f"{prefix}{name}/")
        else:
            is_clean = node.data == node.synced
            yield prefix + name, node.data if is_clean else data(node)


def lay_out(disk: dict[str, bytes | None], place: Path) -> Path:
    """Write a disk below `place`."""
    for name, data in disk.items():
        if data is None:
            (place / name).mkdir(parents=True, exist_ok=True)
        else:
            (place / name).write_bytes(data)
    return place
