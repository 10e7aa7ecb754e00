"""Clean one document: line ends, broken encodings, control characters, white space, length.

Careful with what a language model should see: indentation of code, URLs, literal HTML entities and
typographic quotes stay as they are. Knows nothing about files, languages or duplicates.
"""

import re
from html.parser import HTMLParser

BYTE_ORDER_MARK = "\ufeff"
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2581\ufeff]")
"""U+2581 is SentencePiece's own mark of a space: text that holds it would not decode to itself."""
LONE_SURROGATES = re.compile(r"[\ud800-\udfff]")
TRAILING_SPACE = re.compile(r"[ \t]+(?=\n|\Z)")
BLANK_LINES = re.compile(r"\n{3,}")
BORDERS = ("\n\n", "\n", ". ", " ")
"""Where a long document may be cut, best first."""


def clean_text(text: str) -> str:
    """Return `text` repaired (ftfy), without control characters, its white space made regular."""
    text = text.removeprefix(BYTE_ORDER_MARK).replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii() or CONTROL_CHARACTERS.search(text):
        text = "\n".join(map(_repair_line, text.split("\n")))
    text = BLANK_LINES.sub("\n\n", TRAILING_SPACE.sub("", text))
    return text.strip("\n")


def _repair_line(line: str) -> str:
    """Undo broken decodings in one line; a clean ASCII line is returned as it is.

    HTML entities stay, for a text about HTML means them; files of HTML are unescaped when they are
    parsed. Quotes and full-width characters stay too: they are the author's.
    """
    if line.isascii() and not CONTROL_CHARACTERS.search(line):
        return line
    import ftfy

    line = ftfy.fix_text(
        line, unescape_html=False, uncurl_quotes=False, fix_character_width=False
    ).replace("\u00a0", " ")
    return CONTROL_CHARACTERS.sub("", LONE_SURROGATES.sub("\ufffd", line))


def split_long(text: str, max_length: int) -> list[str]:
    """Cut `text` into pieces of at most `max_length` characters, at paragraphs where possible.

    A piece is at least half full, the last one a quarter, unless blank lines make it shorter. Only
    blank characters at the cuts are lost.
    """
    pieces = []
    start = 0
    while len(text) - start > max_length:
        cut = _cut(text, start, min(start + max_length, len(text) - max_length // 4))
        pieces.append(text[start:cut])
        start = cut
    pieces = [piece.strip("\n").rstrip() for piece in [*pieces, text[start:]]]
    return [piece for piece in pieces if piece]


def _cut(text: str, start: int, stop: int) -> int:
    """Return the best place to cut in the second half of text[start:stop]."""
    middle = start + max((stop - start) // 2, 1)
    for border in BORDERS:
        place = text.rfind(border, middle, stop)
        if place >= 0:
            return place + len(border)
    return stop


class _VisibleText(HTMLParser):
    """Collects what a reader of the page sees; block elements begin a new paragraph."""

    HIDDEN = frozenset({"script", "style", "template", "noscript", "head", "svg", "iframe"})
    BLOCKS = re.compile(
        "address|article|aside|blockquote|body|d[dlt]|details|dialog|div|fieldset|figcaption|figure"
        "|footer|form|h[1-6r]|header|li|main|nav|[ou]l|p|pre|section|summary|table|t[drh]|tbody"
        "|tfoot|thead"
    )

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.hidden: list[str] = []
        self.preformatted = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open a block, a line or a hidden part."""
        if tag == "body":
            self.hidden.clear()
        elif tag in self.HIDDEN:
            self.hidden.append(tag)
        if tag == "br":
            self.parts.append("\n")
        elif self.BLOCKS.fullmatch(tag):
            self.parts.append("\n\n")
        self.preformatted += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        """Close what the tag opened; a hidden part that was never closed ends with its parent."""
        if tag in self.hidden:
            del self.hidden[self.hidden.index(tag) :]
        if self.BLOCKS.fullmatch(tag):
            self.parts.append("\n\n")
        if tag == "pre":
            self.preformatted = max(self.preformatted - 1, 0)

    def handle_data(self, data: str) -> None:
        """Keep visible text; white space counts only inside <pre>."""
        if not self.hidden:
            self.parts.append(data if self.preformatted else re.sub(r"\s+", " ", data))


def html_to_text(page: str) -> str:
    """Return the visible text of an HTML page, one paragraph for each block element."""
    parser = _VisibleText()
    parser.feed(page)
    parser.close()
    text = "".join(parser.parts)
    text = re.sub(r"[ \t]*\n(?:[ \t]*\n)+[ ]?", "\n\n", text)
    return re.sub(r"(?m)^ (?=\S)", "", text).strip()
