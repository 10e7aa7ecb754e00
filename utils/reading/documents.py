"""Records that a source gives: rows, documents, lines that could not be read, files left out.

Knows nothing about formats.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

MAX_NAMED_KEYS = 8
"""Keys listed in the reason of a row without the wanted one."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text as it was read."""

    id: str
    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it was read."""

    file: str
    line: int
    """1-based line, or number of the row in a list or table; 0 for the file as a whole."""
    value: dict[str, Any]
    num_bytes: int = 0
    """Its length as JSON (0 where it is not known)."""

    @property
    def place(self) -> str:
        """`file:line` for messages and ids."""
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line, row or file that gives no document, and why."""

    file: str
    line: int
    """1-based line or row; 0 for the file as a whole."""
    reason: str
    num_bytes: int = 0
    """Its length (0 where it is not known)."""

    @property
    def place(self) -> str:
        """`file:line` for messages."""
        return f"{self.file}:{self.line}" if self.line else self.file


Rows = Iterator[Row | BadLine]
Records = Iterator[Document | BadLine]


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file of a kind that is not read (a picture, an archive)."""

    file: str
    kind: str


def row_line(row: dict[str, str]) -> bytes:
    """Return a row as the JSON line that is stored, with its line end."""
    try:
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:  # a lone surrogate in an id
        fields = {key: value.encode("utf-8", "replace").decode() for key, value in row.items()}
        return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


def row_text(row: dict[str, Any], text_key: str) -> str:
    """Return the text of a row; a list (paragraphs, turns of a conversation) is joined.

    `text_key` may lead into nested objects: `meta.body`.

    Raises:
        ValueError: the row has no such text; the message says what it has instead.
    """
    value: Any = row
    for key in [text_key] if text_key in row else text_key.split("."):
        if not isinstance(value, dict) or key not in value:
            keys = ", ".join(map(str, list(row)[:MAX_NAMED_KEYS])) or "none"
            raise ValueError(f"no key {text_key!r} (keys: {keys})")
        value = value[key]
    if isinstance(value, list) and value:
        value = "\n\n".join(_turn_text(turn, text_key) for turn in value)
    if not isinstance(value, str):
        raise ValueError(f"{text_key!r} is not text but {kind_of(value)}")
    return value


def _turn_text(turn: object, text_key: str) -> str:
    if isinstance(turn, str):
        return turn
    if isinstance(turn, dict):
        for key in ("content", "value", "text"):
            if isinstance(turn.get(key), str):
                return turn[key]
    raise ValueError(f"{text_key!r} holds {kind_of(turn)} where text was expected")


def row_id(row: dict[str, Any], place: str) -> str:
    """Return the row's own id, or its place in the input."""
    own = row.get("id")
    return str(own) if isinstance(own, str | int) and own != "" else place


def kind_of(value: object) -> str:
    """Return the type of a JSON value in words."""
    names = {type(None): "null", bool: "a truth value", int: "a number", float: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")
