"""Lists the Python code of this machine: source files by import name, and compiled-in modules.

Sources are only found here, never imported. Tests and vendored copies of other packages are left
out, and so is everything that is on the path but belongs to no installed distribution.
"""

import csv
import importlib
import importlib.metadata
import inspect
import os
import sysconfig
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from utils.data.builtin.docstrings import MIN_DOC_CHARACTERS, DocRecord, shorten_arguments

SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "idlelib", "lib2to3", "turtledemo", "ensurepip", "site-packages"}
    | {"_vendor", "vendored", "_vendored", "vendor", "node_modules", "__pycache__"}
)
"""Tests, copies of other packages, and files that only look like Python (lib2to3's data)."""
COMPILED_MODULES = ("builtins", "itertools", "math", "sys", "time")
"""Part of the interpreter itself; their docstrings are in no source file."""


@dataclass(frozen=True)
class SourceFile:
    """A Python file with the name it is imported by."""

    path: Path
    module: str
    source: str
    """Distribution it is from, or `python`."""


def find_sources(only: Collection[str] | None = None) -> list[SourceFile]:
    """Return the Python files of the standard library and the installed packages, sorted.

    `only` keeps these top-level modules.
    """
    standard = Path(sysconfig.get_paths()["stdlib"])
    found = [
        SourceFile(standard / name, module, "python")
        for name in _walk(standard)
        if (module := module_name(name, only))
    ]
    for dist in distributions():
        source = dist.name  # parses the metadata each time it is asked for
        # The RECORD itself: `dist.files` makes an object of each of its thousands of lines.
        for name, *_ in csv.reader((dist.read_text("RECORD") or "").splitlines()):
            if module := module_name(name, only):
                found.append(SourceFile(Path(str(dist.locate_file(name))), module, source))
    return sorted(found, key=lambda file: (file.module, file.source))


def _walk(folder: Path) -> Iterator[str]:
    """Yield the names of the files below a folder, relative to it and with slashes."""
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS]
        for name in files:
            yield Path(root, name).relative_to(folder).as_posix()


def module_name(file: str, only: Collection[str] | None = None) -> str | None:
    """Return what a file, relative to its library and with slashes, is imported as.

    None for tests, vendored copies, what cannot be imported, and what is not in `only`.
    """
    if not file.endswith(".py"):
        return None
    *folders, name = parts = file.removesuffix(".py").split("/")
    if (only is not None and parts[0] not in only) or SKIPPED_FOLDERS.intersection(folders):
        return None
    if name.startswith(("test_", "conftest")) or not all(part.isidentifier() for part in parts):
        return None
    return ".".join(folders if name == "__init__" else parts)


def distributions() -> list[importlib.metadata.Distribution]:
    """Return the installed distributions by name; of two with one name the importable one."""
    by_name: dict[str, importlib.metadata.Distribution] = {}
    for dist in importlib.metadata.distributions():
        if dist.metadata["Name"]:
            by_name.setdefault(dist.name, dist)
    return [by_name[name] for name in sorted(by_name)]


def compiled_records(module: str) -> list[DocRecord]:
    """Return the docstrings of a module that is part of the interpreter."""
    owner = importlib.import_module(module)
    found: list[tuple[str, str, object]] = [(module, "module", owner)]
    for name, value in sorted(vars(owner).items()):
        if isinstance(value, type) and value.__module__ == module:
            found.append((f"{module}.{name}", "class", value))
            found += [
                (f"{module}.{name}.{attribute}", "method", method)
                for attribute, method in sorted(vars(value).items())
                if callable(method) and not attribute.startswith("_")
            ]
        elif inspect.isbuiltin(value) and value.__module__ == module:
            found.append((f"{module}.{name}", "function", value))
    return [
        DocRecord(name, kind, _compiled_signature(value), doc, "python")
        for name, kind, value in found
        if len(doc := inspect.getdoc(value) or "") >= MIN_DOC_CHARACTERS
    ]


def _compiled_signature(value: object) -> str:
    text = getattr(value, "__text_signature__", None) or ""
    for self_argument in ("$self, /, ", "$self, ", "$self", "$module, /, ", "$module, ", "$module"):
        text = text.replace(f"({self_argument}", "(")
    return f"({shorten_arguments(text[1:-1].strip('/ ,'))})" if text else ""
