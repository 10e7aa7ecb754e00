import json

import pytest

from utils.checkout import RESULTS
from utils.errors import LumiError
from utils.run_folder import RunFolder
from utils.session.report.outcome import KEYS, read_outcome
from utils.session.state.stages import StageContext

SUMMARY = {"heldout_loss_before": 3.0, "heldout_loss_after": 1.0, "stop_rate": None, "rows": 9}


def write_run(folder, **record):
    (folder / "run.json").write_text(
        json.dumps({"status": "finished", "summary": SUMMARY, **record})
    )
    return folder


def run_numbers(folder, stage):
    return RunFolder.read(folder).finished_numbers(KEYS[stage])


def test_the_numbers_of_a_finished_run_are_taken_by_name(tmp_path):
    assert run_numbers(write_run(tmp_path), "sft") == {
        "heldout_loss_before": 3.0, "heldout_loss_after": 1.0, "stop_rate": None,
    }  # fmt: skip


def test_an_unfinished_run_is_no_result(tmp_path):
    with pytest.raises(LumiError, match="status 'failed', not finished"):
        run_numbers(write_run(tmp_path, status="failed"), "sft")


def test_a_missing_number_is_named(tmp_path):
    with pytest.raises(LumiError, match="lacks first_loss, heldout_accuracy_before"):
        run_numbers(write_run(tmp_path), "dpo")


def test_the_line_of_the_evaluation_says_whether_the_last_model_ends_its_answers(bench):
    context = StageContext(bench.config(), bench.folder / "run", {})
    folder = bench.folder / RESULTS / "run"
    folder.mkdir(parents=True)
    stops = {"stop_rate": {"value": 0.82}}
    measured = {"status": "ok", "measures": stops | {"empty_rate": {"value": 0.0}}}
    silent = {"status": "ok", "measures": stops | {"empty_rate": {"value": 0.14}}}
    for conversations, line in (
        ({"status": "not run"}, "1 of 2 parts measured"),
        (measured, "2 of 2 parts measured, 82.0% of answers stop"),
        (silent, "2 of 2 parts measured, 82.0% of answers stop, 14.0% are empty"),
    ):
        results = {"heldout": {"status": "ok"}, "conversations": conversations}
        (folder / "evaluation_results.json").write_text(json.dumps({"results": results}))
        assert read_outcome("evaluate", context) == (results, line)
