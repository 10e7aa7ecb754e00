"""Text and pages of files, read as rows of one key: {"text": ...}.

Knows nothing about names, sources and archives.
"""

import re
from collections.abc import Callable

from utils.reading.documents import BadLine, Row, Rows
from utils.reading.html_text import html_to_text
from utils.reading.rows import Lines, file_kind, numbered_lines, whole_file
from utils.reading.streams import Readable, TornFile, decode_line, text_blocks

MAX_PAGE_BYTES = 1 << 25
"""Largest page of html (32 MiB)."""
TEXT_CHARACTERS = 1_000_000
"""A longer text file is read as several documents, cut at blank lines (at 4 times this anyway)."""
DOCUMENT_END = "<|endoftext|>"
"""A line that separates the documents of one text file (as in TinyStories)."""
ARTICLE_TITLE = re.compile(r" = [^=].* = ?")
"""First line of an article in WikiText, whose files end with .raw or .tokens."""
TEXT_KEY = "text"
"""Key of the rows that are made here."""


def read_html(file: Readable, name: str) -> Rows:
    """Yield a page as one row, if there is anything in it."""
    data = whole_file(file, name, MAX_PAGE_BYTES)
    if isinstance(data, BadLine):
        yield data
    elif data:
        page = "\n".join(decode_line(line) for line in data.split(b"\n"))
        yield Row(name, 0, {TEXT_KEY: html_to_text(page)})


def read_text(file: Readable, name: str) -> Rows:
    """Yield a file as one row, or as several where separators or its length ask for it.

    Raises:
        TornFile: the file is damaged; what came before has been read.
    """
    wikitext = file_kind(file) in {".raw", ".tokens"}
    parts: list[str] = []
    first, count, characters = 1, 0, 0
    torn: list[TornFile] = []
    for line in _until_torn(numbered_lines(text_blocks(file), name), torn):
        if isinstance(line, BadLine):
            yield line
            continue
        number, text = line[0], decode_line(line[1])
        ends = text.strip() == DOCUMENT_END
        full = characters > TEXT_CHARACTERS * (4 if text.strip() else 1)
        begins = wikitext and ARTICLE_TITLE.fullmatch(text) is not None
        if (ends or full or begins) and parts:
            yield Row(name, first, {TEXT_KEY: "\n".join(parts)})
            parts, first, characters, count = [], number, 0, count + 1
        if not ends:
            parts.append(text)
            characters += len(text) + 1
    if parts:
        yield Row(name, first if count else 0, {TEXT_KEY: "\n".join(parts)})
    if torn:
        raise torn[0]


def _until_torn(lines: Lines, torn: list[TornFile]) -> Lines:
    try:
        yield from lines
    except TornFile as error:
        torn.append(error)


TEXT_READERS: dict[str, Callable[[Readable, str], Rows]] = {
    **dict.fromkeys((".txt", ".text", ".md", ".markdown", ".rst", ".raw", ".tokens"), read_text),
    **dict.fromkeys((".html", ".htm", ".xhtml"), read_html),
}
"""(file, its name in messages) to its rows."""
