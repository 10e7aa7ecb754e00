from utils.evaluation.report import number, render, summary_lines, with_interval
from utils.words import percent

ESTIMATE = {"value": 0.365, "low": 0.301, "high": 0.434, "count": 200}
RESULT = {
    "model": {
        "name": "tiny", "folder": "checkpoints/tiny/final", "parameters": 14_700_000,
        "vocab_size": 32768, "context_length": 1024, "template": None,
    },
    "environment": {
        "device": "cpu", "threads": 2, "dtype": "float32", "torch": "2.13.0",
        "transformers": "5.23.0", "command": ["05_evaluate.py", "--fast_mode"],
    },
    "started": "2026-01-01T10:00:00",
    "seconds": 12.4,
    "results": {
        "boolq": {
            "title": "BoolQ", "status": "ok", "source": "boolq/val.jsonl", "seconds": 2.0,
            "measures": {
                "accuracy": ESTIMATE, "majority_class": 0.6217, "answered_yes": 0.1,
                "skill": "no skill shown: below the baseline",
            },
        },
        "lambada": {"title": "LAMBADA", "status": "not run", "reason": "no file | no hub"},
    },
}  # fmt: skip
RECORD = {
    "category": "basic_knowledge", "prompt": "The capital is", "history": [], "status": "ok",
    "response": "Rome ```\n# no heading", "tokens": 5, "ended": False,
    "quality": {"no_loops": 1.0, "length": 1.0, "score": 1.0},
}  # fmt: skip


def test_numbers_are_short():
    assert [number(x) for x in (1.426, 37.4, 123.4, 4821.0, 2.35e8)] == [
        "1.426", "37.400", "123", "4,821", "2.35e+08",
    ]  # fmt: skip
    assert (number(None), percent(0.6217)) == ("too large to show", "62.2%")
    assert with_interval(ESTIMATE, percent) == "36.5% (30.1% to 43.4%)"


def test_the_report_has_values_reasons_and_whole_answers():
    report = render(RESULT, [RECORD])
    assert "| BoolQ | accuracy | 36.5% (30.1% to 43.4%) | 200 questions |" in report
    assert "no skill shown: below the baseline" in report
    assert "| LAMBADA |  | not run | no file \\| no hub |" in report
    assert "**not run**: no file | no hub" in report
    assert "no measure of truth" not in report.split("## All responses")[0]  # smoke is not there
    assert "````text\nRome ```\n# no heading\n````" in report


def test_the_log_gets_a_line_a_part():
    assert summary_lines(RESULT) == [
        "LAMBADA: not run (no file | no hub)",
        "BoolQ: accuracy: 36.5% (30.1% to 43.4%) (200 questions)",
    ]
