import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from utils.config.session import AnswersConfig
from utils.config.sft import SFTConfig
from utils.errors import CheckpointError, DataError
from utils.files import folder_damage, read_json, read_lines
from utils.model.checkpoints import load_model
from utils.session.report import answers


def test_the_summary_accounts_for_every_row(sft_run):
    run = read_json(sft_run / "run.json")
    summary = run["summary"]
    assert (run["stage"], run["status"]) == ("sft", "finished")
    assert summary["counts"] == {
        "rows": 66, "kept": 61, "held_out": 3, "bad": 1, "dropped": {"too_long": 1},
    }  # fmt: skip
    assert summary["rows"] == 61
    assert summary["dropped"] == {"too_long": 1}
    assert summary["heldout_loss_after"] < summary["heldout_loss_before"]
    assert 0 <= summary["empty_rate"] <= summary["stop_rate"] <= 1
    assert summary["steps"] == 6


def test_the_bad_row_is_written_down_with_its_place(sft_run):
    (bad,) = read_lines(sft_run / "bad_rows.jsonl")
    assert bad["place"].endswith("chats.json:65")
    assert bad["reason"].startswith("no answer to learn from")


def test_a_session_asks_what_the_run_held_out(sft_run, tmp_path):
    heldout = [row["messages"][0]["content"] for row in
               read_lines(sft_run / "heldout_conversations.jsonl")]  # fmt: skip
    values = {"model_paths": [sft_run], "output": tmp_path / "said.json", "max_new_tokens": 2}
    answers.main(AnswersConfig.build(values))
    asked = [entry["question"] for entry in read_json(tmp_path / "said.json")["sft"]]
    assert asked == heldout


def test_metrics_hold_the_plan_and_the_losses(sft_run):
    lines = read_lines(sft_run / "metrics.jsonl")
    assert lines[0]["event"] == "plan"
    assert [line["step"] for line in lines[1:]] == [1, 2, 4, 6]
    assert all({"loss", "learning_rate", "tokens", "tokens_per_s", "time_s"} <= line.keys()
               for line in lines[1:])  # fmt: skip


def test_base_and_adapter_give_the_logits_of_the_merged_model(project, sft_run):
    ids = torch.tensor([[2, 40, 50, 60, 70, 80]])
    base = AutoModelForCausalLM.from_pretrained(project / "checkpoints/pretrain/toy/final")
    adapted = PeftModel.from_pretrained(base, sft_run / "adapter").eval()
    merged = AutoModelForCausalLM.from_pretrained(sft_run / "final").eval()
    with torch.no_grad():
        difference = (adapted(input_ids=ids).logits - merged(input_ids=ids).logits).abs().max()
    assert difference < 1e-4


def test_the_merged_model_is_tied_and_stops_at_the_chat_token(sft_run):
    merged = load_model(sft_run)
    stop = AutoTokenizer.from_pretrained(sft_run / "final").convert_tokens_to_ids("<|im_end|>")
    model = merged.model
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.generation_config.eos_token_id == [2, stop]
    assert merged.card["template"] == "chatml"
    assert merged.card["stage"] == "sft"
    assert folder_damage(sft_run / "final") is None
    assert folder_damage(sft_run / "adapter") is None


def test_a_second_run_moves_the_first_aside(project, sft_run, tmp_path, run_sft):
    out = tmp_path / "sft"
    settings = {
        "model_path": sft_run / "final",
        "dataset_path": project / "data" / "chats.json",
        "output_dir": out,
        "prompt_template": "instruct",
        "max_steps": 1,
    }
    out.mkdir()
    (out / "precious.txt").write_text("keep me")
    run_sft(SFTConfig.build(settings))
    (aside,) = tmp_path.glob("sft.2*")
    assert (aside / "precious.txt").read_text() == "keep me"
    assert load_model(out).card["template"] == "instruct"


def test_nothing_is_moved_when_the_run_cannot_start(project, tmp_path, run_sft):
    out = tmp_path / "sft"
    out.mkdir()
    (out / "precious.txt").write_text("keep me")
    base = project / "checkpoints" / "pretrain" / "toy"
    with pytest.raises(DataError, match=r"missing\.json not found"):
        run_sft(SFTConfig.build({"model_path": base, "dataset_path": tmp_path / "missing.json",
                                 "output_dir": out}))  # fmt: skip
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        run_sft(SFTConfig.build({"model_path": tmp_path / "nothing", "output_dir": out}))
    long = tmp_path / "long.json"
    long.write_text(json.dumps([{"prompt": "a", "response": "x " * 500}] * 4))
    with pytest.raises(DataError, match=r"all rows are dropped \(1 too_long"):
        run_sft(SFTConfig.build({"model_path": base, "dataset_path": long, "output_dir": out}))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("sft")] == ["sft"]
