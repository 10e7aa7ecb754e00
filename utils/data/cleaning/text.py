"""Clean one document: line ends, broken encodings, control characters, white space, length.

Careful with what a language model should see: indentation of code, URLs, literal HTML entities and
typographic quotes stay as they are. Knows nothing about files, languages or duplicates.
"""

import re
import unicodedata

BYTE_ORDER_MARK = "\ufeff"
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2581\ufeff]")
"""U+2581 is SentencePiece's own mark of a space: text that holds it would not decode to itself."""
PLAIN_ASCII = bytes(point for point in range(128) if not CONTROL_CHARACTERS.match(chr(point)))
LONE_SURROGATES = re.compile(r"[\ud800-\udfff]")
NO_BREAK_SPACE = "\u00a0"
SUSPECT = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u0132\u0133\u0149\u01c4-\u01cc\u01f1-\u01f3"
    r"\u2028\u2029\u206a-\u206f\u2581\ud800-\udfff\ufb00-\ufb06\ufeff\ufff9-\ufffc]"
)
"""Characters that ftfy or we change wherever they stand."""
NOT_ASCII = re.compile(r"[^\x00-\x7f]+(?:[\x00-\x09\x0b-\x7f]{1,16}[^\x00-\x7f]+)*")
CONTEXT = 8
"""Signs of a broken decoding are a few characters long, one of them at least beyond ASCII."""
BLANK_LINES = re.compile(r"\n{3,}")
BORDERS = ("\n\n", "\n", ". ", " ")
"""Where a long document may be cut, best first."""


def clean_text(text: str) -> str:
    """Return `text` repaired (ftfy), without control characters, its white space made regular."""
    text = text.removeprefix(BYTE_ORDER_MARK)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if needs_repair(text):
        text = "\n".join(map(_repair_line, text.split("\n")))
    text = text.replace(NO_BREAK_SPACE, " ")
    if " \n" in text or "\t\n" in text or text.endswith((" ", "\t")):
        text = "\n".join(line.rstrip(" \t") for line in text.split("\n"))
    if "\n\n\n" in text:
        text = BLANK_LINES.sub("\n\n", text)
    return text.strip("\n")


def needs_repair(text: str) -> bool:
    """Return whether ftfy might change `text`: quick to ask, and never no where it would.

    What ftfy looks for is looked for in the surroundings of non-ASCII characters alone.
    """
    if text.isascii():
        return bool(text.encode("ascii").translate(None, PLAIN_ASCII))
    if SUSPECT.search(text) or not unicodedata.is_normalized("NFC", text):
        return True
    from ftfy.badness import is_bad

    for run in NOT_ASCII.finditer(text):
        start, end = run.span()
        before = text[max(0, start - CONTEXT) : start].rpartition("\n")[2]
        if is_bad(before + text[start : end + CONTEXT]):
            return True
    return False


def _repair_line(line: str) -> str:
    """Undo broken decodings in one line.

    HTML entities stay, for a text about HTML means them; files of HTML are unescaped when they are
    parsed. Quotes and full-width characters stay too: they are the author's.
    """
    if not needs_repair(line):
        return line
    import ftfy

    line = ftfy.fix_text(line, unescape_html=False, uncurl_quotes=False, fix_character_width=False)
    return CONTROL_CHARACTERS.sub("", LONE_SURROGATES.sub("\ufffd", line))


def without_lines(text: str, phrases: tuple[str, ...]) -> str:
    """Return the text without the lines that hold one of the phrases (lower case) in any case."""
    folded = text.lower()
    if not any(phrase in folded for phrase in phrases):
        return text
    kept = [
        line for line in text.split("\n") if not any(phrase in line.lower() for phrase in phrases)
    ]
    return BLANK_LINES.sub("\n\n", "\n".join(kept)).strip("\n")


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
