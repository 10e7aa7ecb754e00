"""Every benchmark at hand gives its texts; what is not at hand is named and costs nothing."""

import gzip
import json
import logging
import re
from collections import Counter, defaultdict

import pytest

from utils.data.corpus.decontamination import CUT_SHARE, NGRAM, Protected, screen
from utils.evaluation.benchmark_items import benchmark_items


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr("utils.evaluation.benchmark_files.hub_answers", lambda: False)


def test_items_are_the_texts_that_are_measured(tmp_path, offline):
    (tmp_path / "wiki.test.raw").write_text(" = Title = \n \n First paragraph . \n Second one . \n")
    rows = [{"passage": "Title -- P one"}, {"passage": "P one"}, {"passage": "x" * 200 + " -- y"}]
    (tmp_path / "boolq.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "lambada.jsonl").write_text(json.dumps({"text": "a story"}))
    sets = benchmark_items(tmp_path)
    assert [one.name for one in sets] == ["WikiText-2", "BoolQ", "LAMBADA"]
    assert [one.origin for one in sets] == ["wiki.test.raw", "boolq.jsonl", "lambada.jsonl"]
    assert sets[0].texts == ["= Title =", "First paragraph .", "Second one ."]
    assert sets[1].texts == ["P one", "x" * 200 + " -- y"] and sets[2].texts == ["a story"]


def test_what_is_not_at_hand_is_named(tmp_path, offline, caplog):
    (tmp_path / "lambada.jsonl").write_text(json.dumps({"text": "a story"}))
    with caplog.at_level(logging.INFO):
        assert [one.name for one in benchmark_items(tmp_path)] == ["LAMBADA"]
    assert "not decontaminated against WikiText-2, BoolQ" in caplog.text


def _grams(text, word):
    words = re.findall(word, text.lower())
    return {tuple(words[at : at + NGRAM]) for at in range(len(words) - NGRAM + 1)}


def _exact(items, articles, word=r"\w+"):
    """Return the rows held by one article, those held by all together, those with any gram."""
    own = [_grams(item, word) for item in items]
    owners = defaultdict(list)
    for row, grams in enumerate(own):
        for gram in grams:
            owners[gram].append(row)
    by_one, everything = set(), set()
    for article in articles:
        grams = _grams(article, word) & owners.keys()
        everything |= grams
        held = Counter(row for gram in grams for row in owners[gram])
        by_one |= {row for row, count in held.items() if count / len(own[row]) >= CUT_SHARE}
    held = Counter(row for gram in everything for row in owners[gram])
    by_all = {row for row, count in held.items() if count / len(own[row]) >= CUT_SHARE}
    return by_one, by_all, set(held)


@pytest.mark.slow
def test_the_passages_of_boolq_in_wikipedia_are_those_of_an_exact_count(shared_data):
    """The published count, 1,450 of 3,270, is of words of ASCII letters, in all articles together.

    Ours asks whether one article holds a passage, which is what can be cut out of it.
    """
    with (shared_data / "eval/boolq/val.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line)["passage"].partition(" -- ")[2] for line in file]
    articles = [
        json.loads(line)["text"]
        for path in sorted((shared_data / "pretrain/wikipedia").iterdir())
        for line in gzip.decompress(path.read_bytes()).splitlines()
    ]
    _, by_all, touched = _exact(rows, articles, "[a-z0-9]+")
    assert (len(by_all), len(touched)) == (1450, 1852)

    (boolq,) = [one for one in benchmark_items(shared_data / "eval") if one.name == "BoolQ"]
    protected = Protected.of(boolq.texts)
    found = set()
    for start in range(0, len(articles), 200):
        for _, grams in protected.touched(articles[start : start + 200]):
            found |= {boolq.texts[item] for item in protected.held(grams)}
    ours = {row for row, passage in enumerate(rows) if passage in found}
    by_one, by_all, touched = _exact(rows, articles)
    assert ours == by_one
    assert (len(ours), len(by_all), len(touched)) == (1451, 1452, 1852)
    some = articles[:300]
    cut = {number for number, one in enumerate(screen(some, protected)) if one and one.cut}
    assert cut == {number for number, grams in protected.touched(some) if protected.held(grams)}
    assert len(cut) > 50
