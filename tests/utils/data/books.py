"""Small electronic books for tests."""

import zipfile

CONTAINER = (
    '<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
    '<rootfiles><rootfile full-path="OEBPS/content.opf"/></rootfiles></container>'
)
CHAPTER = (
    '<?xml version="1.0" encoding="utf-8"?><!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml">'
    "<head><title>x</title></head><body><h1>{title}</h1><p>{text}</p></body></html>"
)

WORDS = [
    "river",
    "stone",
    "cloud",
    "paper",
    "green",
    "early",
    "silent",
    "north",
    "copper",
    "window",
]


def package(items, spine, more=""):
    """Return a package document: items of (id, href, media type, properties), ids of the spine."""
    listed = "".join(
        f'<item id="{name}" href="{href}" media-type="{kind}" properties="{properties}"/>'
        for name, href, kind, properties in items
    )
    order = "".join(f'<itemref idref="{name}"/>' for name in spine)
    return (
        '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0">'
        '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
        "<dc:title>A Book &amp; more</dc:title>"
        f"</metadata><manifest>{listed}</manifest><spine>{order}</spine>{more}</package>"
    )


def book_files(texts):
    """Return the files of a book: a cover, a table of contents, and a chapter for each text."""
    names = [f"chapter {number}.xhtml" for number in range(len(texts), 0, -1)]  # not by name
    items = [(f"c{at}", name.replace(" ", "%20"), "application/xhtml+xml", "")
             for at, name in enumerate(names)]  # fmt: skip
    items += [("cover", "cover.xhtml", "application/xhtml+xml", ""),
              ("toc", "nav.xhtml", "application/xhtml+xml", "nav"),
              ("picture", "cover.jpg", "image/jpeg", "cover-image")]  # fmt: skip
    spine = ["cover", "toc", *(f"c{at}" for at in range(len(texts)))]
    files = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": CONTAINER,
        "OEBPS/content.opf": package(items, spine),
        "OEBPS/cover.xhtml": "<html><body><img src='cover.jpg'/></body></html>",
        "OEBPS/nav.xhtml": CHAPTER.format(title="Contents", text="One Two"),
        "OEBPS/cover.jpg": b"\xff\xd8\xff" * 1000,
    }
    for number, (name, text) in enumerate(zip(names, texts, strict=True), start=1):
        files[f"OEBPS/{name}"] = CHAPTER.format(title=f"Chapter {number}", text=text)
    return files


def write_book(path, files):
    """Pack the files of a book."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path
