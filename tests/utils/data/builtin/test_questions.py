import random

import pytest

from utils.data.builtin.docstrings import DocRecord
from utils.data.builtin.questions import (
    Subject,
    clean_answer,
    describe_arguments,
    find_example,
    find_subjects,
    make_conversation,
    stems,
)


@pytest.mark.parametrize(
    ("paragraph", "answer"),
    [
        ("Dump ``obj`` as a JSON formatted ``str``.", "Dump `obj` as a JSON formatted `str`."),
        ("return the number of bytes in the data", "Return the number of bytes in the data."),
        ("Read rows of a :class:`~csv.Reader` here.", "Read rows of a `csv.Reader` here."),
        ("Exporter that converts a [`Model`] to a *plain* graph.",
         "Exporter that converts a `Model` to a plain graph."),
        ("Returns the sum of two images. ::", "Returns the sum of two images."),
    ],
)  # fmt: skip
def test_paragraphs_become_plain_sentences_with_single_backticks(paragraph, answer):
    assert clean_answer(paragraph) == answer


@pytest.mark.parametrize(
    "paragraph",
    [
        "Do it.",
        ">>> import io >>> io.BytesIO() gives a new buffer",
        "Args: hidden_states (Tensor): input to the layer of this shape",
        "Returns the sum of all values, for example::  total(values)",
        "The following things can then happen when it is called:",
        "K-means clustering and more ============================",
        "See https://example.com for what this function does.",
        "Return the value of :math:`x^2` or {input} of it all.",
        "Gibt die Anzahl der Schlüssel zurück, die es gibt.",
        "The density of this distribution is given by",
        "Apply the `values to the string that was given.",
        "zip(iter1 [,iter2 [...]]) --> zip object of many things",
    ],
)
def test_paragraphs_with_markup_code_or_references_are_left_out(paragraph):
    assert clean_answer(paragraph) is None


def test_arguments_are_named_in_a_sentence():
    assert describe_arguments("f.g", "(a, *, b=1)") == "`f.g` takes the arguments `a` and `b`."
    assert describe_arguments("f", "(path)") == "`f` takes one argument, `path`."
    assert describe_arguments("f", "(a, *args)") == "`f` takes the arguments `a` and `*args`."


@pytest.mark.parametrize("signature", ["", "()", "(a, ...)", "(a, b, c, d, e, f, g)", "(_x)"])
def test_unknown_cut_and_long_argument_lists_get_no_sentence(signature):
    assert describe_arguments("f", signature) is None


def test_an_example_needs_nothing_before_it():
    doc = "Shorten.\n\n    >>> shorten('Hello  world!', width=12)\n    'Hello world!'\n"
    sentence = "For example, `shorten('Hello  world!', width=12)` gives `'Hello world!'`."
    assert find_example("textwrap.shorten", doc) == sentence
    assert find_example("textwrap.shorten", doc.replace("'Hello  world!',", "text,")) is None
    assert find_example("textwrap.dedent", doc) is None


def test_words_are_compared_by_their_first_letters():
    assert stems("normalizeText") & stems("Apply the normalization.") == {"norma"}
    assert stems("get_item") == {"item"}


def record(name, doc, kind="function", signature="(path)"):
    return DocRecord(name, kind, signature, doc, "pkg")


def test_subjects_are_public_short_and_have_a_summary_of_their_own():
    records = [
        record("builtins.len", "Return the number of items in a container."),
        record("m._hidden", "Return the hidden number of all items."),
        record("m.again", "Return the number of items in a container."),
        record("m.f#2", "Return something that has the same name."),
        record("m.long", "Return " + "very " * 60 + "long texts."),
        record("m.Reader.close", "Close the file of this reader.", "method"),
    ]
    subjects = list(find_subjects(records, 240))
    assert [subject.name for subject in subjects] == ["len", "m.Reader.close"]
    assert subjects[0].module == ""
    assert subjects[1].module == "m"
    assert subjects[1].is_inferable
    assert not subjects[0].is_inferable


def test_conversations_alternate_and_ask_about_the_subject():
    subject = Subject("m.f", "function", "pkg", "Return the first file.", "It takes `a`.", None)
    rng = random.Random(0)
    conversations = [make_conversation(subject, rng) for _ in range(200)]
    assert len({conversation[0]["content"] for conversation in conversations}) == 10
    assert {len(conversation) for conversation in conversations} == {2, 4, 6}
    for conversation in conversations:
        roles = [message["role"] for message in conversation]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert "m.f" in conversation[0]["content"]
