"""Cleaning repairs what is broken and leaves alone what an author meant."""

import json
import random

import ftfy
import pytest
from ftfy.badness import is_bad

from utils.data.cleaning.text import clean_text, needs_repair, split_long

DELIBERATE = "\u00a0\ufb01\u0149\u01cc\u01c9"
"""Characters we make ordinary on purpose: no-break space, ligatures."""


def test_code_keeps_its_indentation_and_loses_trailing_blanks():
    assert clean_text("def f():  \n    return 1\t\n\n\n\n    # end\n") == (
        "def f():\n    return 1\n\n    # end"
    )


def test_line_ends_of_every_system_become_newlines():
    assert clean_text("\ufeffone\r\ntwo\rthree\n") == "one\ntwo\nthree"


def test_broken_encodings_are_repaired_line_by_line():
    assert clean_text("ASCII &amp; entities stay\nvoil\u00c3\u00a0 le travail") == (
        "ASCII &amp; entities stay\nvoil\u00e0 le travail"
    )


@pytest.mark.parametrize("character", ["\x00", "\x07", "\x7f", "\u2581", "\ufeff", "\x0c"])
def test_control_characters_are_removed(character):
    assert clean_text(f"a{character}b\n\tc") == "ab\n\tc"


def test_a_lone_surrogate_becomes_a_replacement_character_that_can_be_stored():
    assert clean_text("a\ud800b").encode("utf-8") == "a\ufffdb".encode()


def test_urls_and_typographic_quotes_stay():
    text = "see https://example.org/a?b=1&lt=2#c \u201cquoted\u201d \u4e2d\u6587\uff0c"
    assert clean_text(text) == text


@pytest.mark.parametrize("name", ["in-the-wild", "synthetic", "negative"])
def test_the_cases_of_ftfy_come_out_as_its_authors_want(shared_data, name):
    cases = json.loads((shared_data / "dirty" / "ftfy" / f"{name}.json").read_text("utf-8"))
    checked = 0
    for case in cases:
        wanted = case.get("fixed-encoding", case["fixed"])
        ours = any(character in wanted for character in DELIBERATE)
        control = any(ord(character) < 32 or 127 <= ord(character) < 160 for character in wanted)
        if case["expect"] == "pass" and not ours and not control:
            assert clean_text(case["original"]) == wanted
            checked += 1
    assert checked > 20


def _ftfy_alone(text):
    line = ftfy.fix_text(text, unescape_html=False, uncurl_quotes=False, fix_character_width=False)
    return line.replace("\u00a0", " ")


def test_a_line_that_needs_no_repair_is_one_that_ftfy_leaves_alone(shared_data):
    lines = [
        line
        for path in sorted((shared_data / "dirty" / "ftfy").glob("*.json"))
        for case in json.loads(path.read_text("utf-8"))
        for text in (case["original"], case["fixed"])
        for line in text.split("\n")
    ]
    quiet = [line for line in lines if not needs_repair(line)]
    assert 50 < len(quiet) < len(lines)
    for line in quiet:
        assert _ftfy_alone(line) == line.replace("\u00a0", " ")


@pytest.mark.parametrize("seed", range(20))
def test_signs_of_a_broken_decoding_are_found_between_any_other_text(seed):
    chance = random.Random(seed)
    points = (*[10] * 30, *[0xC2, 0xC3, 32] * 30, *range(32, 0x180), *range(0x2010, 0x2040), 0x20AC)
    everything = list(map(chr, points))
    missed = 0
    for _ in range(300):
        text = "".join(
            "x" * chance.randrange(20) + "".join(chance.choices(everything, k=chance.randrange(6)))
            for _ in range(4)
        )
        if not needs_repair(text):
            missed += _ftfy_alone(text) != text.replace("\u00a0", " ")
        for line in text.split("\n"):
            missed += is_bad(line) and not needs_repair(line)
    assert missed == 0


def test_every_character_that_ftfy_changes_by_itself_is_suspect():
    changed = {
        character
        for character in map(chr, (*range(0x3100), *range(0xD7F0, 0x10000), 0x1F600, 0x2F800))
        if _ftfy_alone(character) != character != "\u00a0"
    }
    assert all(needs_repair(character) for character in changed - {"\r"})


def test_long_texts_are_split_at_paragraphs_and_nothing_is_lost():
    paragraphs = [f"Paragraph {number} " + "word " * (number % 40) for number in range(300)]
    text = clean_text("\n\n".join(paragraphs))
    pieces = split_long(text, 1000)
    assert all(250 <= len(piece) <= 1000 for piece in pieces)
    assert all(piece.startswith("Paragraph") for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


@pytest.mark.parametrize("length", [1, 2, 7, 99, 100, 101, 250, 1001])
def test_a_text_without_any_border_is_cut_hard(length):
    pieces = split_long("x" * length, 100)
    assert "".join(pieces) == "x" * length
    assert all(len(piece) <= 100 for piece in pieces)


def test_a_short_text_is_not_split():
    assert split_long("  indented\n\nshort", 100) == ["  indented\n\nshort"]
