import json

import pytest

from utils.errors import DataError
from utils.evaluation.judgement import judge, read_result


def estimate(value, half, count=100):
    return {"value": value, "low": value - half, "high": value + half, "count": count}


def result(parameters=124_000_000, **parts):
    return {
        "model": {"parameters": parameters, "name": "m"},
        "results": {
            name: {"title": name, "status": "ok", "measures": measures}
            for name, measures in parts.items()
        },
    }


@pytest.fixture(scope="module")
def expectations(root):
    content = json.loads((root / "evaluation/expected_ranges.json").read_text(encoding="utf-8"))
    assert all(entry["source"] for entry in content["expectations"])
    return content["expectations"]


def verdicts(found, expectations):
    return {v.measure: v.verdict for v in judge(found, expectations)}


@pytest.mark.parametrize(
    ("measure", "found", "verdict"),
    [
        ("accuracy", estimate(0.33, 0.02), "as expected"),
        ("accuracy", estimate(0.05, 0.02), "below: the published models saw up to 300 billion"),
        ("accuracy", estimate(0.60, 0.02), "above: better than published, look for test text"),
    ],
)
def test_an_accuracy_is_judged_by_its_interval(expectations, measure, found, verdict):
    assert verdicts(result(lambada={measure: found}), expectations)[
        f"lambada: {measure}"
    ].startswith(verdict)


def test_a_high_perplexity_is_worse_and_a_part_is_not_comparable(expectations):
    found = {"word_perplexity": estimate(120.0, 5.0), "is_whole_test_set": True}
    name = "wikitext: word perplexity"
    assert verdicts(result(wikitext=found), expectations)[name].startswith("above: the published")
    found = {"word_perplexity": estimate(20.0, 5.0), "is_whole_test_set": True}
    assert "better than published" in verdicts(result(wikitext=found), expectations)[name]
    found = {"word_perplexity": estimate(40.0, 5.0), "is_whole_test_set": False}
    assert verdicts(result(wikitext=found), expectations)[name] == (
        "as expected (on a part of the test set: not comparable)"
    )


def test_boolq_without_skill_is_said_with_the_majority_class(expectations):
    found = {"accuracy": estimate(0.60, 0.05), "majority_class": 0.6217}
    lines = [v.verdict for v in judge(result(boolq=found), expectations) if "boolq" in v.measure]
    assert lines == ["no skill (majority class is 62.17%)", "as expected"]


def test_the_model_must_beat_counting_pairs(expectations):
    def verdict(value):
        measures = {"bits_per_byte": estimate(value, 0.01), "bigram_bits_per_byte": 2.0}
        return verdicts(result(heldout=measures), expectations)["heldout: bits per byte"]

    assert verdict(1.5) == "as expected"
    assert verdict(2.001) == "too close to tell"
    assert verdict(2.5) == "above: no better than counting pairs of tokens"


def test_sizes_without_published_figures_and_missing_parts_are_said(expectations):
    found = verdicts(result(5_000_000, lambada={"accuracy": estimate(0.1, 0.01)}), expectations)
    assert found["lambada: accuracy"] == "no published range"
    assert found["boolq: accuracy"] == "not run"


def test_a_file_that_is_no_result_is_refused(tmp_path):
    path = tmp_path / "evaluation_results.json"
    for content, message in (("[]", "is no evaluation result"), ("{", "not valid JSON")):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(DataError, match=message):
            read_result(path)
    path.write_text('{"format": 2, "model": {}, "results": {}}', encoding="utf-8")
    with pytest.raises(DataError, match="has format 2"):
        read_result(path)
