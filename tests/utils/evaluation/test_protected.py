"""Every benchmark at hand gives its texts; what is not at hand is named and costs nothing."""

import json
import logging

import pytest

from utils.evaluation.protected import benchmark_items


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr("utils.evaluation.sources.hub_answers", lambda: False)


def test_items_are_the_texts_that_are_measured(tmp_path, offline):
    (tmp_path / "wiki.test.raw").write_text(" = Title = \n \n First paragraph . \n Second one . \n")
    rows = [{"passage": "P one", "question": "q"}, {"passage": "P one", "question": "r"}]
    (tmp_path / "boolq.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "lambada.jsonl").write_text(json.dumps({"text": "a story"}))
    sets = benchmark_items(tmp_path)
    assert [one.name for one in sets] == ["WikiText-2", "BoolQ", "LAMBADA"]
    assert [one.origin for one in sets] == ["wiki.test.raw", "boolq.jsonl", "lambada.jsonl"]
    assert sets[0].texts == ["= Title =", "First paragraph .", "Second one ."]
    assert sets[1].texts == ["P one"] and sets[2].texts == ["a story"]


def test_what_is_not_at_hand_is_named(tmp_path, offline, caplog):
    (tmp_path / "lambada.jsonl").write_text(json.dumps({"text": "a story"}))
    with caplog.at_level(logging.INFO):
        assert [one.name for one in benchmark_items(tmp_path)] == ["LAMBADA"]
    assert "not decontaminated against WikiText-2, BoolQ" in caplog.text
