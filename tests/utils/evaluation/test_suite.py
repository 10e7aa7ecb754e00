import importlib
import json
from pathlib import Path

import pytest

from utils.config.evaluate import EvaluateConfig
from utils.errors import ConfigError, DataError, Interrupted
from utils.evaluation.measurements import (
    MEASUREMENTS,
    Context,
    Measurement,
    Outcome,
    fitting_corpus,
)
from utils.evaluation.suite import model_label
from utils.files import folder_damage, read_json
from utils.model.checkpoints import LoadedModel, load_model

evaluate = importlib.import_module("scripts.05_evaluate").main

ROWS = {
    "boolq/val.jsonl": [{"passage": "p", "question": "q", "label": i % 2} for i in range(60)],
    "lambada/lambada_test.jsonl": [{"text": f"the value of item {i}"} for i in range(60)],
}


@pytest.fixture
def data_dir(tmp_path):
    folder = tmp_path / "eval"
    for name, rows in ROWS.items():
        (folder / name).parent.mkdir(parents=True)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / name).write_text(lines, encoding="utf-8")
    (folder / "wikitext2").mkdir()
    (folder / "wikitext2/wiki.test.raw").write_text(" \n = A = \n \n b c . \n", encoding="utf-8")
    for name, row in {
        "sft": {"prompt": "Hi", "response": "Yes"},
        "dpo": {"prompt": "Hi", "chosen": "a", "rejected": "b c d"},
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps([row] * 3), encoding="utf-8")
    return folder


@pytest.fixture
def settings(checkpoint_dir, prepared_dir, data_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def build(**changes):
        values = {
            "model_path": checkpoint_dir,
            "data_dir": data_dir,
            "corpus_dir": prepared_dir,
            "sft_heldout_path": tmp_path / "sft.json",
            "dpo_heldout_path": tmp_path / "dpo.json",
            "output_dir": tmp_path / "out",
            "max_new_tokens": 8,
            "fast_mode": True,
            "cpu": True,
        }
        return EvaluateConfig.build(values | changes)

    return build


def only(*names):
    return [part for part in MEASUREMENTS if part.name in names]


def test_every_part_is_measured_and_the_report_has_all_answers(settings, monkeypatch):
    folder = evaluate(settings(sft_heldout_path=Path("nothing.json")))
    result = read_json(folder / "evaluation_results.json")
    results = result["results"]
    assert {name: entry["status"] for name, entry in results.items()} == {
        **dict.fromkeys(("heldout", "preferences", "smoke", "lambada", "boolq", "wikitext"), "ok"),
        "conversations": "not run",
    }
    assert results["conversations"]["reason"].startswith("nothing.json not found")
    assert results["boolq"]["measures"]["accuracy"]["count"] == 50
    assert results["lambada"]["measures"]["perplexity"]["count"] == 50
    heldout = results["heldout"]["measures"]
    assert heldout["bits_per_byte"]["value"] > heldout["unigram_bits_per_byte"]
    assert heldout["unigram_bits_per_byte"] > heldout["bigram_bits_per_byte"]
    assert (result["format"], result["model"]["parameters"]) == (1, 120_640)
    assert result["environment"]["dtype"] == "float32"
    report = (folder / "report.md").read_text(encoding="utf-8")
    records = [json.loads(line) for line in (folder / "records/smoke.jsonl").open()]
    assert len(records) == 8
    assert all(record["prompt"] in report for record in records)
    assert [path.name for path in (folder / "records").iterdir()] == ["smoke.jsonl"]
    assert folder_damage(folder) is None


CONVERSATIONS = {
    "alpaca": {"instruction": "Add them.", "input": "1 and 2", "output": "3"},
    "sharegpt": {
        "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "a"}]
    },
    "question and answer": {"question": "What is 1 plus 2?", "answer": "3"},
}


@pytest.mark.parametrize("layout", CONVERSATIONS)
def test_heldout_conversations_are_read_in_every_layout_that_is_trained_on(
    settings, tmp_path, layout
):
    path = tmp_path / "mine_heldout.jsonl"
    path.write_text(json.dumps(CONVERSATIONS[layout]) + "\n")
    folder = evaluate(settings(sft_heldout_path=path), only("conversations"))
    [entry] = read_json(folder / "evaluation_results.json")["results"].values()
    assert (entry["status"], entry.get("reason")) == ("ok", None)
    assert (entry["source"], entry["measures"]["rows"]) == (path.as_posix(), 1)


def test_whole_dialogues_are_read_as_preferences(settings, tmp_path):
    path = tmp_path / "hh.jsonl"
    dialogue = "\n\nHuman: Is 2 even?\n\nAssistant: "
    row = {"chosen": f"{dialogue}Yes.", "rejected": f"{dialogue}Perhaps so, who can tell."}
    path.write_text(json.dumps(row) + "\n")
    folder = evaluate(settings(dpo_heldout_path=path), only("preferences"))
    [entry] = read_json(folder / "evaluation_results.json")["results"].values()
    assert (entry["status"], entry["measures"]["rows"]) == ("ok", 1)


def test_a_model_is_not_judged_on_practice_data_that_it_was_not_trained_on(settings, tmp_path):
    for name in ("sft", "dpo"):
        practice = tmp_path / "data" / f"{name}_dataset_heldout.json"
        practice.parent.mkdir(exist_ok=True)
        practice.write_bytes((tmp_path / f"{name}.json").read_bytes())
    cfg = settings(sft_heldout_path=None, dpo_heldout_path=None)
    folder = evaluate(cfg, only("conversations", "preferences"))
    for entry in read_json(folder / "evaluation_results.json")["results"].values():
        assert entry["status"] == "not run"
        assert "does not say which rows were held out" in entry["reason"]


def test_detailed_output_keeps_a_record_of_every_item(settings):
    cfg = settings(fast_mode=False, detailed_output=True, max_boolq_samples=7)
    folder = evaluate(cfg, only("boolq", "lambada", "wikitext"))
    lines = {path.stem: len(path.read_text().splitlines()) for path in folder.glob("records/*")}
    assert lines == {"boolq": 7, "lambada": 60, "wikitext": 1}


def test_skip_perplexity_and_a_used_up_box_are_not_run_with_the_reason(settings):
    folder = evaluate(settings(skip_perplexity=True), only("wikitext"))
    [entry] = read_json(folder / "evaluation_results.json")["results"].values()
    assert (entry["status"], entry["reason"]) == ("not run", "left out by --skip_perplexity")
    folder = evaluate(settings(max_minutes=0.0001), only("boolq"))
    [entry] = read_json(folder / "evaluation_results.json")["results"].values()
    assert entry["reason"] == "no time left in the time box of 0.0001 minutes"


def test_missing_benchmark_files_are_not_run_with_the_remedy(settings, tmp_path):
    (tmp_path / "empty").mkdir()
    folder = evaluate(settings(data_dir=tmp_path / "empty"), only("boolq", "lambada", "wikitext"))
    for entry in read_json(folder / "evaluation_results.json")["results"].values():
        assert entry["status"] == "not run"
        assert "the hub cannot be reached: pass --data_dir" in entry["reason"]
        assert "measures" not in entry


def test_a_corpus_of_another_tokenizer_is_not_run_by_name(settings, prepared_dir, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for path in prepared_dir.rglob("*"):
        if path.is_file():
            (other / path.relative_to(prepared_dir)).parent.mkdir(parents=True, exist_ok=True)
            (other / path.relative_to(prepared_dir)).write_bytes(path.read_bytes())
    manifest = read_json(other / "manifest.json")
    (other / "manifest.json").write_text(
        json.dumps({**manifest, "tokenizer_sha256": "e" * 64}), encoding="utf-8"
    )
    folder = evaluate(settings(corpus_dir=other), only("heldout"))
    [entry] = read_json(folder / "evaluation_results.json")["results"].values()
    assert entry["status"] == "not run"
    assert "was prepared with eeeeeeeeeeee" in entry["reason"]


def test_an_earlier_result_is_moved_aside_and_other_files_are_refused(settings, tmp_path):
    first = evaluate(settings(skip_perplexity=True), only("wikitext"))
    before = (first / "evaluation_results.json").read_bytes()
    assert evaluate(settings(skip_perplexity=True), only("wikitext")) == first == tmp_path / "out"
    [aside] = tmp_path.glob("out.*")
    assert (aside / "evaluation_results.json").read_bytes() == before
    with pytest.raises(ConfigError, match="holds other files"):
        evaluate(settings(output_dir=tmp_path), only("wikitext"))


def test_without_output_dir_each_run_gets_its_own_folder(settings):
    cfg = settings(output_dir=None, skip_perplexity=True)
    folders = {evaluate(cfg, only("wikitext")) for _ in range(3)}
    assert len(folders) == 3
    assert {folder.parent.as_posix() for folder in folders} == {"evaluation/results"}
    named = evaluate(settings(output_dir=None, run_name="mine"), [])
    assert named == Path("evaluation/results/mine").resolve()


def broken(context: Context) -> Outcome:
    raise ZeroDivisionError("a bug")


def stopped(context: Context) -> Outcome:
    raise Interrupted("stopped by a signal")


def test_a_bug_is_not_hidden_and_what_was_measured_is_kept(settings, tmp_path):
    parts = [*only("boolq"), Measurement("bug", "A bug", broken)]
    with pytest.raises(ZeroDivisionError):
        evaluate(settings(), parts)
    results = read_json(tmp_path / "out/evaluation_results.json")["results"]
    assert (results["boolq"]["status"], results["bug"]["status"]) == ("ok", "failed")


def test_a_stopped_run_keeps_what_was_measured(settings, tmp_path):
    parts = [*only("boolq"), Measurement("stop", "Stop", stopped), *only("lambada")]
    with pytest.raises(Interrupted, match="results so far are in"):
        evaluate(settings(), parts)
    results = read_json(tmp_path / "out/evaluation_results.json")["results"]
    assert [entry["status"] for entry in results.values()] == ["ok", "not run", "not run"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_dir": "nowhere"}, "--data_dir nowhere is no folder"),
        ({"corpus_dir": "nowhere"}, "--corpus_dir nowhere is no folder"),
    ],
)
def test_a_mistyped_path_is_refused_before_anything_is_loaded(settings, changes, message):
    with pytest.raises(ConfigError, match=message):
        evaluate(settings(**changes))


def test_the_modes_exclude_each_other(settings):
    with pytest.raises(ConfigError, match="exclude each other"):
        settings(detailed_output=True)


def test_a_checkpoint_is_named_after_its_run():
    names = {
        "checkpoints/pretrain/tiny/final": "tiny",
        "checkpoints/pretrain/tiny/step_200": "tiny-step_200",
        "checkpoints/pretrain/tiny/best": "tiny-best",
        "models/gpt2": "gpt2",
    }
    assert {path: model_label(Path(path)) for path in names} == names


def test_the_corpus_with_the_same_tokenizer_is_found(checkpoint_dir, prepared_dir, tmp_path):
    loaded = load_model(checkpoint_dir, device="cpu")
    assert fitting_corpus(loaded, prepared_dir.parent) == prepared_dir
    stranger = LoadedModel(loaded.model, loaded.tokenizer, loaded.folder, {})
    with pytest.raises(DataError, match="no prepared folder in"):
        fitting_corpus(stranger, prepared_dir.parent)
