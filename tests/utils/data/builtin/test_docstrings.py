from textwrap import dedent

import pytest

from utils.data.builtin.docstrings import (
    DocRecord,
    extract_records,
    extract_topics,
    shorten_arguments,
)


def records_of(code):
    return {record.name: record for record in extract_records(dedent(code).encode(), "m", "pkg")}


def test_functions_classes_methods_and_modules_get_their_qualified_names():
    found = records_of('''
        """What this module is there for."""
        class Box:
            """A box with a lid that can be opened."""
            def __init__(self, size, *, lid=True): pass
            def open(self, force: float = 1.0) -> None:
                """Open the lid with some force.

                Further text.
                """
            @property
            def size(self):
                """The size of the box in metres."""
        if True:
            async def wait(*args, **kwargs):
                """Wait until everything has arrived."""
        ''')
    assert {name: (record.kind, record.signature) for name, record in found.items()} == {
        "m": ("module", ""),
        "m.Box": ("class", "(size, *, lid=True)"),
        "m.Box.open": ("method", "(force=1.0)"),
        "m.Box.size": ("property", ""),
        "m.wait": ("function", "(*args, **kwargs)"),
    }
    opened = found["m.Box.open"]
    assert opened.text == (
        "m.Box.open(force=1.0)\n\nOpen the lid with some force.\n\nFurther text."
    )
    assert opened.summary == "Open the lid with some force."
    assert found["m.Box"].text.startswith("class m.Box(size, *, lid=True)\n\nA box")
    assert opened.source == "pkg"


def test_static_methods_keep_their_first_argument_and_class_methods_do_not():
    found = records_of('''
        class A:
            @staticmethod
            def add(a, b):
                """Return the sum of both numbers."""
            @classmethod
            def build(cls, text):
                """Return an instance from its text."""
        ''')
    assert found["m.A.add"].signature == "(a, b)"
    assert found["m.A.build"].signature == "(text)"


def test_docstrings_given_by_a_call_are_found_with_their_signature():
    found = records_of('''
        add_docstr(torch.abs, r"""
        abs(input: Tensor, *, out=None) -> Tensor

        Computes the absolute value of each element.
        """ + r"""
        Args:
            {input}
        """.format(**common))
        add_newdoc("numpy", "put", "Put values into an array in place.")
        add_docstr_all("sum", "Return the sum of all elements.")
        add_newdoc("lonely", "Does something on its own here.")
        ''')
    record = found["torch.abs"]
    assert record.signature == "(input, *, out=None)"
    assert record.doc == "Computes the absolute value of each element.\n\nArgs:"
    assert set(found) == {"torch.abs", "numpy.put", "torch.Tensor.sum", "m.lonely"}


def test_lone_surrogates_do_not_reach_the_text():
    found = records_of("""
        def f():
            "Return the character \\ud800 or nothing at all."
        """)
    assert found["m.f"].doc == "Return the character  or nothing at all."


@pytest.mark.parametrize("code", [b"def f(:", b"\0", b"\xff\xfe broken"])
def test_a_broken_file_raises_an_error_of_the_parser(code):
    with pytest.raises((SyntaxError, ValueError)):
        extract_records(code, "m", "pkg")


def test_long_argument_lists_are_cut_between_two_arguments():
    arguments = ", ".join(f"argument_{number}=None" for number in range(40))
    short = shorten_arguments(arguments)
    assert len(short) <= 165
    assert short.endswith("=None, ...")


def test_a_signature_before_the_first_paragraph_is_no_summary():
    doc = "zip_longest(*iterables) -> iterator\n\nMake an iterator\nof tuples."
    assert DocRecord("m.f", "function", "", doc, "pkg").summary == "Make an iterator of tuples."


def test_pages_of_the_language_reference_are_documents_of_their_own():
    (page,) = extract_topics(b"topics = {'if': 'The if statement is used for conditions.'}")
    assert (page.name, page.kind) == ("topics.if", "topic")
    assert page.text == "The if statement is used for conditions."
