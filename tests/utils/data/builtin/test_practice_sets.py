import json
import shutil
from dataclasses import asdict

import pytest

from utils.config.prepare import SampleConfig
from utils.data.builtin.docstrings import DocRecord
from utils.data.builtin.practice_sets import CARD, make_datasets, write_datasets
from utils.data.builtin.pydocs import CACHE, cache_key, pydocs_records
from utils.data.builtin.questions import find_subjects, follow_up_answers, stems
from utils.errors import DataError
from utils.files import atomic_folder

ONLY = ("argparse", "asyncio", "builtins", "email", "json", "logging", "tkinter", "turtle", "http")
FILES = [
    "dpo_dataset.json",
    "dpo_dataset_heldout.json",
    "sft_dataset.json",
    "sft_dataset_heldout.json",
]
CFG = SampleConfig(num_sft=300, num_dpo=100, num_heldout=30)


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> list[DocRecord]:
    return list(pydocs_records(tmp_path_factory.mktemp("cache") / "pydocs", ONLY, 1))


@pytest.fixture(scope="module")
def datasets(records):
    return make_datasets(CFG, records)


def questions(rows):
    firsts = [row["prompt"] if "prompt" in row else row["messages"] for row in rows]
    return [first if isinstance(first, str) else first[0]["content"] for first in firsts]


def answers(rows):
    texts = []
    for row in rows:
        turns = row.get("messages", [])
        texts += [turn["content"] for turn in turns if turn["role"] == "assistant"]
        texts += [row[key] for key in ("response", "chosen", "rejected") if key in row]
    return texts


def names_in(rows, names):
    words = [set(question.replace("?", " ").split()) for question in questions(rows)]
    return {name for name in names for group in words if {name, f"{name}."} & group}


def test_the_four_files_have_the_rows_asked_for(datasets):
    assert {name: len(rows) for name, rows in datasets.items()} == {
        "sft_dataset.json": 75,  # one source of its own: a quarter of 300
        "dpo_dataset.json": 100,
        "sft_dataset_heldout.json": 7,
        "dpo_dataset_heldout.json": 30,
    }


def test_the_same_records_give_the_same_rows_and_another_seed_gives_others(records, datasets):
    assert make_datasets(CFG, iter(records)) == datasets
    other = SampleConfig(num_sft=300, num_dpo=100, num_heldout=30, seed=7)
    assert make_datasets(other, records)["sft_dataset.json"] != datasets["sft_dataset.json"]


def test_no_function_and_no_answer_is_in_training_and_held_out(records, datasets):
    names = {subject.name for subject in find_subjects(records, 240)}
    train = datasets["sft_dataset.json"] + datasets["dpo_dataset.json"]
    heldout = datasets["sft_dataset_heldout.json"] + datasets["dpo_dataset_heldout.json"]
    assert len(names_in(heldout, names)) >= 30
    assert not names_in(train, names) & names_in(heldout, names)
    modules = {text for text in answers(train) if text.startswith("It is in ")}
    assert not (set(answers(train)) - modules) & set(answers(heldout))


def test_answers_are_short_and_end_like_sentences(datasets):
    for rows in datasets.values():
        for answer in answers(rows):
            assert answer[-1] in ".!?"
            assert len(answer) <= 260
            assert not any(mark in answer for mark in (">>>", "::", ":param", "``", "\n"))


def test_rejected_answers_are_as_long_as_the_right_ones_and_never_used_twice(datasets):
    rows = datasets["dpo_dataset.json"]
    for row in rows:
        assert abs(len(row["rejected"]) - len(row["chosen"])) <= 0.25 * len(row["chosen"])
    summaries = [row["rejected"] for row in rows if isinstance(row["prompt"], str)]
    assert len(set(summaries)) == len(summaries)
    assert sum(len(row["chosen"]) > len(row["rejected"]) for row in rows) in range(30, 70)


def test_the_name_tells_the_right_answer_from_the_wrong_one(records, datasets):
    by_summary = {subject.summary: subject for subject in find_subjects(records, 240)}
    for row in datasets["dpo_dataset.json"]:
        if isinstance(row["prompt"], str):
            subject = by_summary[row["chosen"]]
            assert subject.name_stems & stems(row["chosen"])
            assert not subject.name_stems & stems(row["rejected"])
            assert subject.module != by_summary[row["rejected"]].module


def test_some_pairs_answer_the_later_question_of_a_dialogue(records, datasets):
    by_summary = {subject.summary: subject for subject in find_subjects(records, 240)}
    rows = [row for row in datasets["dpo_dataset.json"] if not isinstance(row["prompt"], str)]
    assert 8 <= len(rows) <= 30
    for row in rows:
        first, summary, *later = row["prompt"]
        subject = by_summary[summary["content"]]
        assert subject.name in first["content"]
        assert [message["role"] for message in later] == ["user", "assistant", "user"][
            -len(later) :
        ]
        own = follow_up_answers(subject)
        asked = next(forms for forms in own if later[-1]["content"] in forms)
        assert row["chosen"] == own[asked] != row["rejected"]
        assert all(message["content"] in own.values() for message in later[1:2])


def test_too_few_docstrings_are_refused_in_one_line(records):
    with pytest.raises(DataError, match=r"clean docstrings are too few for .*make install"):
        make_datasets(CFG, records[:3])


def write(folder, text):
    write_datasets(folder, {"sft_dataset.json": text}, {"sft_dataset.json": 1})


def test_a_file_of_the_users_own_is_never_overwritten(tmp_path):
    mine = tmp_path / "sft_dataset.json"
    mine.write_text("[]")
    with pytest.raises(DataError, match="was not made by this command"):
        write(tmp_path, b"[1]")
    assert mine.read_text() == "[]"
    assert not (tmp_path / CARD).exists()


def test_a_file_of_ours_is_replaced_until_somebody_changes_it(tmp_path):
    write(tmp_path, b"[1]")
    write(tmp_path, b"[2]")
    assert (tmp_path / "sft_dataset.json").read_bytes() == b"[2]"
    (tmp_path / "sft_dataset.json").write_text("[3]")
    with pytest.raises(DataError, match="or changed since"):
        write(tmp_path, b"[2, 2]")
    assert (tmp_path / "sft_dataset.json").read_text() == "[3]"


def test_equal_content_is_left_as_it_is(tmp_path):
    write(tmp_path, b"[1]")
    made = (tmp_path / "sft_dataset.json").stat().st_mtime_ns
    write(tmp_path, b"[1]")
    assert (tmp_path / "sft_dataset.json").stat().st_mtime_ns == made


def test_the_command_writes_the_sets_and_a_card_and_refuses_foreign_files(
    tmp_path, run_module, records
):
    with atomic_folder(tmp_path / CACHE, kind="pydocs", key=cache_key(None)) as folder:
        lines = [json.dumps(asdict(record)) + "\n" for record in records]
        (folder / "records.jsonl").write_text("".join(lines))
    flags = ("--num_sft", 50, "--num_dpo", 20, "--num_heldout", 10)
    done = run_module("utils.data.builtin.practice_sets", *flags)
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / "data" / CARD).read_text())
    assert sorted(card["rows"]) == FILES
    for name, count in card["rows"].items():
        assert len(json.loads((tmp_path / "data" / name).read_text())) == count
    shutil.copy(tmp_path / "data" / CARD, tmp_path / "data" / "sft_dataset.json")
    refused = run_module("utils.data.builtin.practice_sets", *flags)
    assert refused.returncode == 1
    assert "sft_dataset.json was not made by this command" in refused.stderr
    assert "Traceback" not in refused.stderr
