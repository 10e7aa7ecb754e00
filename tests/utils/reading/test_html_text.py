"""Pages give their visible text, damaged ones too, and in a time that their length bounds."""

import gzip
import html.parser
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.reading.html_text import BLANK_LINES, BLOCKS, HIDDEN, LEADING_BLANK, html_to_text


def test_html_gives_the_visible_text_in_paragraphs():
    page = """<!doctype html><html><head><title>no</title><style>p {}</style></head>
    <body><h1>Title</h1><p>One   &amp; <b>two</b><br>three</p><script>var x = "<p>no</p>";</script>
    <ul><li>first<li>second</ul><pre>if x:
    y</pre></body></html>"""
    assert html_to_text(page) == "Title\n\nOne & two\nthree\n\nfirst\n\nsecond\n\nif x:\n    y"


def test_html_that_is_never_closed_keeps_its_text():
    assert html_to_text("<p>one<p>two <b>bold") == "one\n\ntwo bold"
    assert html_to_text("<html><head><title>x</title><body>text") == "text"


def test_xhtml_closes_its_elements_in_their_tags():
    assert html_to_text("<body>a<script src='x'/>b<style/>c<p/>d") == "abc\n\nd"


def test_what_no_browser_shows_is_left_out():
    assert html_to_text("<?xml version='1.0'?><!doctype x>a<!-- <p>no</p> -->b<!-->c</>d") == "abcd"
    assert html_to_text("a<script>if (1 </script>b") == "ab"
    assert html_to_text("a<SCRIPT>x</Script >b<style>never closed") == "ab"


def test_a_greater_sign_in_a_value_does_not_end_a_tag():
    assert html_to_text('<a title="x > y" rel=z>text</a>') == "text"
    assert html_to_text("<a title='x > \"y' rel>text</a>") == "text"
    assert html_to_text('<a title="never closed>text') == "text"


def test_signs_that_begin_no_tag_are_text():
    assert html_to_text("1 < 2 and <3, a<") == "1 < 2 and <3, a<"
    assert (
        html_to_text("&lt;b&gt; &#233; &#" + "9" * 5000 + "; &nope;") == "<b> \u00e9 \ufffd &nope;"
    )


@pytest.mark.parametrize(
    "part",
    ["<a ", "<a '", '<a ="', "<!--x", "</ ", "<![", "<![CDATA[", "<?", "<", "&", "&#", "<script>",
     "<svg>", "<template><style>", "<pre> ", "<pre>\t\n", "</svg>", "<a b='>", "<p/", '<a b="\'>'],
)  # fmt: skip
def test_a_long_damaged_page_takes_no_longer_than_a_whole_one(part):
    page = "<svg>" * 50_000 + "</svg>" + part * 100_000 + "<" + " " * 200_000
    started = time.process_time()
    html_to_text(page)
    assert time.process_time() - started < 10


class Reference(html.parser.HTMLParser):
    """The same rules about elements over the parser of the standard library."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.parts, self.hidden, self.preformatted = [], [], 0

    def handle_starttag(self, tag, attrs):
        if tag == "body":
            self.hidden.clear()
        elif tag in HIDDEN:
            self.hidden.append(tag)
        if tag == "br":
            self.parts.append("\n")
        elif BLOCKS.fullmatch(tag):
            self.parts.append("\n\n")
        self.preformatted += tag == "pre"

    def handle_endtag(self, tag):
        if tag in self.hidden:
            del self.hidden[self.hidden.index(tag) :]
        if BLOCKS.fullmatch(tag):
            self.parts.append("\n\n")
        if tag == "pre":
            self.preformatted = max(self.preformatted - 1, 0)

    def handle_data(self, data):
        if not self.hidden:
            self.parts.append(data if self.preformatted else re.sub(r"\s+", " ", data))


def reference_text(page):
    parser = Reference()
    parser.feed(page)
    parser.close()
    return LEADING_BLANK.sub("", BLANK_LINES.sub("\n\n", "".join(parser.parts))).strip()


def test_real_pages_read_as_the_parser_of_the_standard_library_reads_them(shared_data):
    paths = sorted((shared_data / "dirty/html").glob("*.html.gz"))
    pages = [gzip.decompress(path.read_bytes()).decode("utf-8", "replace") for path in paths]
    assert len(pages) == 12
    for page in pages:
        found = html_to_text(page)
        assert len(found) > 1000
        assert found.split() == reference_text(page).split()


TAGS = st.sampled_from(
    ["p", "b", "pre", "div", "br", "svg", "script", "style", "head", "body", "template", "li", "i"]
).flatmap(lambda name: st.sampled_from([f"<{name}>", f"</{name}>", f"<{name} a='b>' c=\"d\">",
                                        f"<{name}/>", f"<{name.upper()} x = y>"]))  # fmt: skip
WORDS = st.sampled_from(
    ["word", " two words ", "\n\n", "&amp;", "&eacute;", "&#65;", "<!-- no -->"]
)


@settings(max_examples=400, derandomize=True, deadline=None)
@given(st.lists(TAGS | WORDS, max_size=20).map("".join))
def test_pages_without_damage_read_as_the_standard_library_reads_them(page):
    closed = page + "</script></style>"
    assert html_to_text(closed).split() == reference_text(closed).split()


@settings(max_examples=400, derandomize=True, deadline=None)
@given(st.text(st.sampled_from("<>!-/?[]'\"= \n&;#ascriptvg0"), max_size=60))
def test_no_page_raises(page):
    assert isinstance(html_to_text(page), str)
