"""One batch through a worker: every document and every character is accounted for."""

import json

from utils.data.cleaning.batch import Rules, refine
from utils.reading.documents import Document

RULES = Rules(20, 200, "en", "py3langid", 0.7, 0.8)
ENGLISH = "This is a perfectly ordinary English sentence about the weather in the north. "
GERMAN = "Dies ist ein ganz gew\u00f6hnlicher deutscher Satz \u00fcber das Wetter im Norden. "


def _refine(*texts, rules=RULES):
    documents = [Document(f"d{number}", text, "src") for number, text in enumerate(texts)]
    return refine((documents, rules))


def test_documents_and_characters_add_up():
    texts = [
        "",
        "short",
        ENGLISH,
        GERMAN * 2,
        ENGLISH * 10,
        "\x00" * 50,
        "  \r\n\r\n" + ENGLISH + "\x07",
    ]
    result = _refine(*texts)
    counts = result.counts
    dropped = sum(rejection.characters for rejection in result.rejections)
    assert counts["documents_in"] == 7
    assert counts["documents_in"] + counts["pieces_added"] == len(result.lines) + len(
        result.rejections
    )
    assert counts["characters_in"] == sum(map(len, texts))
    assert (
        counts["characters_in"] == sum(result.characters) + dropped + counts["removed_by_cleaning"]
    )


def test_each_rejection_has_its_reason():
    result = _refine("short", ENGLISH, GERMAN * 2)
    assert [(rejection.id, rejection.reason) for rejection in result.rejections] == [
        ("d0", "too_short"), ("d2", "other_language"),
    ]  # fmt: skip
    assert result.rejections[0].detail == "5 characters, fewer than 20"


def test_long_documents_are_split_and_never_dropped():
    result = _refine(ENGLISH * 10)
    rows = [json.loads(line) for line in result.lines]
    assert [row["id"] for row in rows[:3]] == ["d0", "d0#2", "d0#3"]
    assert "".join("".join(row["text"] for row in rows).split()) == "".join((ENGLISH * 10).split())


def test_cleaning_that_makes_a_text_longer_is_counted_too():
    result = _refine("a text with one ligature \ufb03 in it, which becomes three", rules=RULES)
    assert result.counts["removed_by_cleaning"] == -2


def test_lines_are_json_that_any_reader_takes():
    rules = Rules(1, 200, None, "py3langid", 0.7, None)
    result = _refine('quotes " and \\ and \ud800 and \u2028 and \u4e2d', rules=rules)
    row = json.loads(result.lines[0])
    assert row == {
        "id": "d0",
        "source": "src",
        "text": 'quotes " and \\ and \ufffd and\n and \u4e2d',
    }
    assert result.keys.shape == (1, 0)
