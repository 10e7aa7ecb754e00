"""Reads the chapters of an electronic book (EPUB) in reading order.

An EPUB is a zip archive: META-INF/container.xml names the package, whose spine lists the chapters.
XML is read as a stream of elements, and declarations of entities are refused, so that a few bytes
cannot become gigabytes. Knows nothing about what stands in a chapter.

Reference: EPUB 3.3, W3C Recommendation (2023), parts 4.2.6 (container) and 5 (package).
"""

import posixpath
from dataclasses import dataclass, field
from typing import BinaryIO
from urllib.parse import unquote
from xml.parsers import expat

from utils.reading.archives import Archive, Member
from utils.reading.streams import Readable, TornFile, read_blocks

CONTAINER, ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"
MAX_XML_BYTES = 1 << 22
"""Longest package (4 MiB); that of a book of a thousand chapters has a tenth of it."""
PAGE_TYPES = frozenset({"application/xhtml+xml", "text/html", "text/x-oeb1-document"})
KEPT_ELEMENTS = frozenset({
    "rootfile", "item", "itemref", "reference", "title", "EncryptionMethod", "CipherReference",
})  # fmt: skip
FONT_ALGORITHMS = frozenset({
    "http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC",
})  # fmt: skip
"""Methods that obscure fonts only; any other in encryption.xml protects against copying."""


@dataclass
class Element:
    """One of KEPT_ELEMENTS, without its name space."""

    name: str
    attributes: dict[str, str]
    text: list[str] = field(default_factory=list)


class Missing:
    """A chapter that the book lists and does not hold, or not as text."""

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self._reason = reason

    def open(self, mode: str = "rb") -> BinaryIO:
        """Say what is wrong.

        Raises:
            TornFile: always.
        """
        raise TornFile(self._reason)


@dataclass(frozen=True)
class Book:
    """Title and chapters; its tables of contents are left out."""

    title: str
    chapters: list[Readable]


def read_book(archive: Archive) -> Book:
    """Return what the package of a book lists.

    Raises:
        TornFile: no book, damaged, or protected against copying.
        OSError: the file cannot be read.
    """
    roots = [one for one in _elements(archive, CONTAINER) if one.name == "rootfile"]
    package = unquote(roots[0].attributes.get("full-path", "")) if roots else ""
    elements = _elements(archive, package)
    folder = posixpath.dirname(package)
    protected = _protected_names(archive)
    items = {one.attributes.get("id", ""): one.attributes for one in elements if one.name == "item"}
    contents = {
        _place(folder, one.attributes)
        for one in elements
        if one.name == "reference" and one.attributes.get("type") == "toc"
    }
    chapters: dict[str, Readable] = {}
    for one in elements:
        if one.name != "itemref":
            continue
        item = items.get(one.attributes.get("idref", ""))
        name = _place(folder, item) if item else one.attributes.get("idref", "")
        if name in protected:
            raise TornFile("protected against copying (DRM)")
        if name not in contents and "nav" not in (item or {}).get("properties", "").split():
            chapters.setdefault(name, _chapter(archive, name, item))
    if not chapters:
        raise TornFile("no chapters: its package lists none")
    titles = (" ".join("".join(one.text).split()) for one in elements if one.name == "title")
    return Book(next(titles, ""), list(chapters.values()))


def _place(folder: str, attributes: dict[str, str]) -> str:
    """Return the name in the archive of what an `href` in the package points at."""
    href = unquote(attributes.get("href", "").partition("#")[0])
    return posixpath.normpath(posixpath.join(folder, href))


def _chapter(archive: Archive, name: str, item: dict[str, str] | None) -> Readable:
    if item is None:
        return Missing(name, "a chapter that the package does not list")
    if (kind := item.get("media-type", "")) not in PAGE_TYPES:
        return Missing(name, f"a chapter of type {kind or 'none'}, not XHTML")
    return archive.find(name) or Missing(name, "a chapter that is not in the book")


def _protected_names(archive: Archive) -> set[str]:
    """Return the names of what is encrypted, fonts apart."""
    names: set[str] = set()
    if archive.find(ENCRYPTION) is None:
        return names
    algorithm = ""
    for one in _elements(archive, ENCRYPTION):
        if one.name == "EncryptionMethod":
            algorithm = one.attributes.get("Algorithm", "")
        elif one.name == "CipherReference" and algorithm not in FONT_ALGORITHMS:
            names.add(posixpath.normpath(unquote(one.attributes.get("URI", ""))))
    return names


def _elements(archive: Archive, name: str) -> list[Element]:
    """Return the elements of an XML file that say something about the book.

    Raises:
        TornFile: it is missing, too long, not well-formed, or declares entities.
    """
    member = archive.find(name)
    if member is None:
        raise TornFile(f"no book: {name or 'its package'} is missing")
    try:
        return _parse(member)
    except expat.ExpatError as error:
        raise TornFile(f"damaged book: {name} is no XML ({error})") from error
    except (TornFile, ValueError, LookupError) as error:
        raise TornFile(f"damaged book: {name}: {error}") from error


class _Elements:
    """Collects the elements that matter while expat reads."""

    def __init__(self) -> None:
        self.found: list[Element] = []
        self._inside: list[Element] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.rpartition(" ")[2]
        if name in KEPT_ELEMENTS:
            self.found.append(Element(name, attributes))
            self._inside.append(self.found[-1])

    def end(self, name: str) -> None:
        if self._inside and self._inside[-1].name == name.rpartition(" ")[2]:
            self._inside.pop()

    def text(self, data: str) -> None:
        if self._inside and self._inside[-1].name == "title":
            self._inside[-1].text.append(data)

    def entity(self, *_: object) -> None:
        raise TornFile("declares entities, which are not read")


def _parse(member: Member) -> list[Element]:
    elements = _Elements()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler, parser.EndElementHandler = elements.start, elements.end
    parser.CharacterDataHandler, parser.EntityDeclHandler = elements.text, elements.entity
    length = 0
    for block in read_blocks(member):
        length += len(block)
        if length > MAX_XML_BYTES:
            raise TornFile(f"longer than {MAX_XML_BYTES >> 20} MiB")
        parser.Parse(block)
    parser.Parse(b"", True)
    return elements.found
