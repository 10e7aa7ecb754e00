"""Returns the visible text of a page of HTML or XHTML.

Tags are found as the HTML standard finds them, in time proportional to the page: on some damaged
pages the parser of Python's library takes its square, on others it raises. Knows nothing about
files.

Reference: HTML Living Standard, 13.2.5 (tokenization).
"""

import html
import re

HIDDEN = frozenset({"script", "style", "template", "noscript", "head", "svg", "iframe"})
RAW_END = {name: re.compile(f"</{name}(?=[\\s/>])", re.IGNORECASE) for name in ("script", "style")}
"""End tags of elements in which there are no other tags."""
BLOCKS = re.compile(
    "address|article|aside|blockquote|body|d[dlt]|details|dialog|div|fieldset|figcaption|figure"
    "|footer|form|h[1-6r]|header|li|main|nav|[ou]l|p|pre|section|summary|table|t[drh]|tbody"
    "|tfoot|thead"
)
TAG = re.compile(
    r"""</?+(?P<name>[A-Za-z][^\s/>]*+)(?>[^>=]++|=\s*+(?:"[^"]*+"|'[^']*+'|(?!["'])))*+>"""
)
"""A tag; a > in the quoted value of an attribute does not end it."""
TAG_NAME = re.compile(r"</?+(?P<name>[A-Za-z][^\s/>]*+)")
COMMENT_END = re.compile(r"--!?>")
LONG_NUMBER = re.compile(r"&#[0-9]{8,};?")
"""A reference to no character; the library would choke on thousands of digits."""
BLANKS = re.compile(r"\s+")
BLANK_LINES = re.compile(r"(?<![ \t])[ \t]*+\n(?:[ \t]*+\n)+ ?")
LEADING_BLANK = re.compile(r"(?m)^ (?=\S)")


def html_to_text(page: str) -> str:
    """Return the visible text of a page, one paragraph for each block element."""
    visible = _VisibleText()
    at = 0
    while (start := page.find("<", at)) >= 0:
        visible.data(page[at:start])
        at = _markup(page, start, visible)
    visible.data(page[at:])
    text = "".join(visible.parts)
    return LEADING_BLANK.sub("", BLANK_LINES.sub("\n\n", text)).strip()


def _markup(page: str, start: int, visible: "_VisibleText") -> int:
    """Take what begins with the < at `start`; return where it ends."""
    if found := TAG_NAME.match(page, start):
        return _tag(page, start, found["name"].lower(), visible)
    if page.startswith("<!--", start):
        closing = COMMENT_END.search(page, start + 2)
        return closing.end() if closing else len(page)
    if page[start + 1 : start + 2] in ("!", "?", "/") and start + 2 < len(page):
        return page.find(">", start) + 1 or len(page)
    visible.data("<")
    return start + 1


def _tag(page: str, start: int, name: str, visible: "_VisibleText") -> int:
    found = TAG.match(page, start)
    # An open quote reaches to the end of the page: then the next > ends the tag.
    end = found.end() if found else page.find(">", start) + 1 or len(page)
    if page[start + 1] == "/":
        visible.end(name)
        return end
    visible.start(name)
    if page[end - 2] == "/":
        visible.end(name)
    elif name in RAW_END:
        closing = RAW_END[name].search(page, end)
        return closing.start() if closing else len(page)
    return end


class _VisibleText:
    """Collects what a reader of the page sees; block elements begin a new paragraph."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._depth = 0
        self._opened: dict[str, int] = {}
        """At which depth the first hidden element of a name begins."""
        self._preformatted = 0

    def start(self, name: str) -> None:
        """Open a block, a line or a hidden part."""
        if name == "body":
            self._close(0)
        elif name in HIDDEN:
            self._opened.setdefault(name, self._depth)
            self._depth += 1
        if name == "br":
            self.parts.append("\n")
        elif BLOCKS.fullmatch(name):
            self.parts.append("\n\n")
        self._preformatted += name == "pre"

    def end(self, name: str) -> None:
        """Close what the tag opened; a hidden part that was never closed ends with its parent."""
        if name in self._opened:
            self._close(self._opened[name])
        if BLOCKS.fullmatch(name):
            self.parts.append("\n\n")
        if name == "pre":
            self._preformatted = max(self._preformatted - 1, 0)

    def _close(self, depth: int) -> None:
        self._depth = depth
        self._opened = {name: at for name, at in self._opened.items() if at < depth}

    def data(self, data: str) -> None:
        """Keep visible text; white space counts only inside <pre>."""
        if not data or self._depth:
            return
        data = html.unescape(LONG_NUMBER.sub("\ufffd", data))
        self.parts.append(data if self._preformatted else BLANKS.sub(" ", data))
