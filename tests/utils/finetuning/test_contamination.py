"""Rows that hold a benchmark's text do not reach training; what was found is written down."""

import json

import pytest

from utils.chat.layouts import Preference
from utils.config.dpo import DPOConfig
from utils.config.sft import SFTConfig
from utils.files import read_json, read_lines
from utils.finetuning.contamination import (
    MAX_RECORDS,
    conversation_text,
    decontaminated,
    preference_text,
)

PASSAGE = " ".join(f"passage{number}" for number in range(30))


@pytest.fixture
def benchmarks(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.evaluation.benchmark_files.hub_answers", lambda: False)
    folder = tmp_path / "eval"
    folder.mkdir()
    (folder / "boolq.jsonl").write_text(json.dumps({"passage": PASSAGE, "question": "q"}))
    return folder


def _chat(text):
    return [{"role": "user", "content": "Go on."}, {"role": "assistant", "content": text}]


def test_a_row_with_four_fifths_of_a_passage_goes_and_one_with_less_stays(benchmarks):
    words = PASSAGE.split()  # 18 grams of 13 words; 15 of them are 83 %, 14 are 78 %
    held, less, free = " ".join(words[:27]), " ".join(words[:26]), "Nothing of it."
    found = decontaminated(
        SFTConfig(eval_data_dir=benchmarks), [_chat(held), _chat(less), _chat(free)],
        conversation_text,
    )  # fmt: skip
    assert found.rows == [_chat(less), _chat(free)]
    assert found.dropped == 1
    assert [record["id"] for record in found.records] == ["row 1", "row 2"]
    assert found.records[0]["detail"] == "83% of the 13-grams of item 1 of BoolQ"
    (boolq,) = found.findings["sets"]
    assert (boolq["name"], boolq["items_found"]) == ("BoolQ", 1)


@pytest.mark.parametrize("field", ["prompt", "chosen", "rejected"])
def test_every_text_of_a_pair_counts(benchmarks, field):
    texts = {"prompt": _chat("Hm."), "chosen": "Yes.", "rejected": "No."}
    texts[field] = _chat(PASSAGE) if field == "prompt" else PASSAGE
    rows = [Preference(**texts)]
    cfg = DPOConfig(eval_data_dir=benchmarks)
    assert decontaminated(cfg, rows, preference_text).rows == []
    off = cfg.model_copy(update={"decontaminate": False})
    assert decontaminated(off, rows, preference_text).rows == rows


def test_without_benchmarks_all_rows_stay(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.evaluation.benchmark_files.hub_answers", lambda: False)
    found = decontaminated(SFTConfig(eval_data_dir=tmp_path), [_chat(PASSAGE)], conversation_text)
    assert (found.rows, found.dropped, found.findings) == ([_chat(PASSAGE)], 0, {})


def test_records_are_bounded_and_the_count_is_not(benchmarks):
    rows = [_chat(PASSAGE)] * (MAX_RECORDS + 5)
    found = decontaminated(SFTConfig(eval_data_dir=benchmarks), rows, conversation_text)
    assert (found.dropped, len(found.records)) == (MAX_RECORDS + 5, MAX_RECORDS)


def test_a_run_counts_them_and_writes_them_down(benchmarks, project, tmp_path, caplog, run_sft):
    rows = json.loads((project / "data" / "chats.json").read_text())[:64]
    rows[5] = {"prompt": "Tell.", "response": PASSAGE}
    dataset = tmp_path / "chats.json"
    dataset.write_text(json.dumps(rows))
    heldout = tmp_path / "chats_heldout.json"
    heldout.write_text(json.dumps(rows[:3]))
    cfg = SFTConfig.build({
        "model_path": project / "checkpoints" / "pretrain" / "toy", "dataset_path": dataset,
        "output_dir": tmp_path / "sft", "max_steps": 1, "eval_data_dir": benchmarks,
    })  # fmt: skip
    run_sft(cfg)
    summary = read_json(tmp_path / "sft" / "run.json")["summary"]
    assert summary["dropped"] == {"contaminated": 1, "in_heldout": 3}
    assert summary["decontamination"]["sets"][0]["items_found"] == 1
    (record,) = read_lines(tmp_path / "sft" / "contaminated.jsonl")
    assert record["id"] == "row 6" and record["text"].startswith("passage0 passage1")
    assert "1 row(s) left out: they hold texts that stage 05 measures on" in caplog.text
