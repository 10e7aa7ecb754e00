"""A book gives its chapters in reading order; a damaged or protected one says what is wrong."""

import pytest

from tests.utils.data.books import book_files, package, write_book
from utils.reading.archives import Archive
from utils.reading.documents import BadLine
from utils.reading.epub import read_book
from utils.reading.readers import read_file
from utils.reading.streams import TornFile

XHTML = "application/xhtml+xml"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a book.epub"


def _read(path):
    records = list(read_file(path, "a book.epub", "books", "text"))
    bad = [(one.file, one.reason) for one in records if isinstance(one, BadLine)]
    return [(one.id, one.text) for one in records if not isinstance(one, BadLine)], bad


def test_chapters_come_in_reading_order_under_the_title_of_the_book(path):
    write_book(path, book_files(["First text.", "Second &eacute; text."]))
    documents, bad = _read(path)
    assert bad == []
    assert documents == [
        ("a book.epub/OEBPS/cover.xhtml", ""),
        ("a book.epub/OEBPS/chapter 2.xhtml", "A Book & more\n\nChapter 1\n\nFirst text."),
        ("a book.epub/OEBPS/chapter 1.xhtml", "Chapter 2\n\nSecond \u00e9 text."),
    ]


def test_a_title_that_stands_there_already_is_not_repeated(path):
    write_book(path, book_files(["A Book &amp; more, by its author.", "Text."]))
    assert [text for _, text in _read(path)[0]][1:] == [
        "Chapter 1\n\nA Book & more, by its author.", "Chapter 2\n\nText."
    ]  # fmt: skip


def test_tables_of_contents_are_left_out_and_chapters_come_once(path):
    items = [("a", "a.html", XHTML, ""), ("b", "b.html", XHTML, "")]
    guide = '<guide><reference type="toc" href="b.html#top"/></guide>'
    files = book_files([]) | {
        "OEBPS/content.opf": package(items, ["a", "b", "a"], guide),
        "OEBPS/a.html": "<p>text", "OEBPS/b.html": "<p>contents",
    }  # fmt: skip
    assert _read(write_book(path, files)) == (
        [("a book.epub/OEBPS/a.html", "A Book & more\n\ntext")], []
    )  # fmt: skip


def test_chapters_that_are_none_are_named_and_the_others_kept(path):
    items = [("a", "a.xhtml", XHTML, ""), ("gone", "gone.xhtml", XHTML, ""),
             ("picture", "p.svg", "image/svg+xml", ""), ("bytes", "b.xhtml", XHTML, ""),
             ("up", "../../../etc/passwd", XHTML, "")]  # fmt: skip
    spine = ["gone", "picture", "unknown", "bytes", "up", "a"]
    files = book_files([]) | {
        "OEBPS/content.opf": package(items, spine), "OEBPS/a.xhtml": "<p>kept",
        "OEBPS/p.svg": "<svg/>", "OEBPS/b.xhtml": bytes(range(256)) * 9,
    }  # fmt: skip
    documents, bad = _read(write_book(path, files))
    assert [text for _, text in documents] == ["A Book & more\n\nkept"]
    assert bad == [
        ("a book.epub/OEBPS/gone.xhtml", "a chapter that is not in the book"),
        ("a book.epub/OEBPS/p.svg", "a chapter of type image/svg+xml, not XHTML"),
        ("a book.epub/unknown", "a chapter that the package does not list"),
        ("a book.epub/OEBPS/b.xhtml", "binary data, no text"),
        ("a book.epub/../../etc/passwd", "a chapter that is not in the book"),
    ]


def _encryption(name, algorithm):
    return (
        '<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container" '
        'xmlns:enc="http://www.w3.org/2001/04/xmlenc#"><enc:EncryptedData>'
        f'<enc:EncryptionMethod Algorithm="{algorithm}"/><enc:CipherData>'
        f'<enc:CipherReference URI="{name}"/></enc:CipherData></enc:EncryptedData></encryption>'
    )


def test_a_protected_book_is_refused_and_one_with_obscured_fonts_is_not(path):
    files = book_files(["Text."])
    aes = "http://www.w3.org/2001/04/xmlenc#aes128-cbc"
    for name, algorithm, is_read in (
        ("OEBPS/chapter%201.xhtml", aes, False),
        ("OEBPS/font.otf", "http://www.idpf.org/2008/embedding", True),
        ("OEBPS/cover.jpg", aes, True),
    ):
        files["META-INF/encryption.xml"] = _encryption(name, algorithm)
        documents, bad = _read(write_book(path, files))
        assert bool(documents) is is_read
        assert bad == ([] if is_read else [("a book.epub", "protected against copying (DRM)")])


LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><package>&b;</package>'


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("META-INF/container.xml", None, "no book: META-INF/container.xml is missing"),
        ("META-INF/container.xml", "<container/>", "no book: its package is missing"),
        ("META-INF/container.xml", "torn <", "META-INF/container.xml is no XML"),
        ("OEBPS/content.opf", None, "no book: OEBPS/content.opf is missing"),
        ("OEBPS/content.opf", "<package><spine/>", "OEBPS/content.opf is no XML"),
        ("OEBPS/content.opf", "<package/>", "no chapters"),
        ("OEBPS/content.opf", LAUGHS, "declares entities"),
        ("OEBPS/content.opf", "<p>" + " " * (5 << 20) + "</p>", "longer than 4 MiB"),
        ("OEBPS/content.opf", '<?xml version="1.0" encoding="none-such"?><p/>', "damaged book"),
        ("META-INF/encryption.xml", "<", "META-INF/encryption.xml is no XML"),
    ],
)
def test_a_damaged_book_says_what_is_wrong(path, name, data, reason):
    files = book_files(["Text."]) | {name: data}
    write_book(path, {name: data for name, data in files.items() if data is not None})
    with Archive(path) as archive, pytest.raises(TornFile) as error:
        read_book(archive)
    assert reason in str(error.value) and "\n" not in str(error.value)
    assert _read(path) == ([], [("a book.epub", str(error.value))])
