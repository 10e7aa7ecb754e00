import importlib
import math
import shutil

import pytest
import torch

from utils.config.dpo import DPOConfig
from utils.config.evaluate import EvaluateConfig
from utils.errors import CheckpointError, PreflightError
from utils.evaluation.measurements import MEASUREMENTS
from utils.evaluation.preferences import answer_likelihoods
from utils.files import read_json, read_lines, write_json
from utils.finetuning.dpo import (
    build_trainer,
    first_loss,
    policy,
)
from utils.finetuning.lora import load_adapter, row_logits
from utils.finetuning.training_rows import PAIRS, read_rows
from utils.model.checkpoints import load_model


@pytest.fixture(scope="module")
def settings(project, sft_run):
    return {
        "model_path": sft_run,
        "dataset_path": project / "data" / "pairs.json",
        "output_dir": project / "checkpoints" / "dpo",
        "max_steps": 8,
        "logging_steps": 4,
        "learning_rate": 2e-3,
    }


@pytest.fixture(scope="module")
def dpo_run(settings, run_dpo):
    run_dpo(DPOConfig.build(settings))
    return settings["output_dir"]


@pytest.fixture
def trainer(settings):
    cfg = DPOConfig.build(settings)
    adapted = policy(cfg)
    rows = read_rows(PAIRS, cfg, adapted.base, adapted.template).train
    built, planned = build_trainer(cfg, adapted, rows)
    return rows, planned.order, built


def test_training_starts_at_ln_2_and_learns_the_preference(dpo_run):
    run = read_json(dpo_run / "run.json")
    summary = run["summary"]
    assert run["status"] == "finished"
    assert summary["first_loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert summary["pairs"] == 38
    assert summary["heldout_reward_margin"] > 0
    assert summary["heldout_reward_accuracy"] >= 0.5
    lines = [line for line in read_lines(dpo_run / "metrics.jsonl") if "loss" in line]
    assert lines[0]["loss"] > math.log(2) + 0.5  # with the chosen answers' own loss
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert lines[-1]["reward_margin"] > 0


def test_the_merged_model_keeps_template_and_parent(dpo_run, sft_run):
    loaded = load_model(dpo_run)
    assert (loaded.card["stage"], loaded.card["template"]) == ("dpo", "chatml")
    assert loaded.card["dataset"] == "docs"
    assert load_model(sft_run).card["parent"] != loaded.card["parent"]


def test_base_and_adapter_give_the_logits_of_the_merged_model(dpo_run):
    adapted = load_adapter(dpo_run / "adapter")
    ids = [2, 40, 50, 60, 70]
    difference = row_logits(adapted.base.model, ids) - row_logits(load_model(dpo_run).model, ids)
    assert difference.abs().max() < 1e-4
    assert adapted.template.name == "chatml"


def measured(model, out):
    cfg = EvaluateConfig.build({"model_path": model, "output_dir": out, "cpu": True})
    wanted = [part for part in MEASUREMENTS if part.name in ("conversations", "preferences")]
    evaluate = importlib.import_module("scripts.05_evaluate").main
    return read_json(evaluate(cfg, wanted) / "evaluation_results.json")["results"]


def test_stage_05_measures_the_rows_that_both_runs_held_out(project, dpo_run, sft_run, tmp_path):
    sft, dpo = (read_json(run / "run.json") for run in (sft_run, dpo_run))
    assert dpo["heldout"]["conversations"] == sft["heldout"]["conversations"]
    assert dpo["heldout"]["preferences"]["rows"] == dpo["summary"]["heldout_pairs"] == 2
    assert sft["heldout"]["conversations"]["rows"] == sft["summary"]["heldout_rows"] == 3
    of_sft = measured(sft_run, tmp_path / "a")
    loss = of_sft["conversations"]["measures"]["answer_loss"]
    assert (loss["value"], loss["count"]) == (
        pytest.approx(sft["summary"]["heldout_loss_after"]),
        3,
    )
    assert of_sft["preferences"]["status"] == "not run"
    moved = tmp_path / "moved"
    shutil.copytree(dpo_run, moved)
    results = measured(moved, tmp_path / "b")
    accuracy = results["preferences"]["measures"]["accuracy"]
    assert (accuracy["value"], accuracy["count"]) == (dpo["summary"]["heldout_accuracy_after"], 2)
    whose = results["conversations"]["measures"]["heldout"]
    assert (whose["run"], whose["rows"], whose["file"]) == (
        "sft", 3, (moved / "heldout_conversations.jsonl").as_posix(),
    )  # fmt: skip
    assert whose["source"] == (project / "data" / "chats.json").as_posix()


def test_an_interrupted_run_is_not_continued_by_accident(settings, sft_run, tmp_path):
    shutil.copytree(sft_run, tmp_path / "sft")
    record = read_json(tmp_path / "sft" / "run.json")
    write_json(tmp_path / "sft" / "run.json", {**record, "status": "interrupted"})
    with pytest.raises(CheckpointError, match="is interrupted, not finished: run stage 03 again"):
        policy(DPOConfig.build({**settings, "model_path": tmp_path / "sft"}))


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_loss_is_the_preference_loss_and_the_weighted_loss_of_chosen_answers(settings, weight):
    cfg = DPOConfig.build(settings | {"sft_loss_weight": weight})
    adapted = policy(cfg)
    rows = read_rows(PAIRS, cfg, adapted.base, adapted.template).train
    built, planned = build_trainer(cfg, adapted, rows)
    inputs = built._prepare_inputs(next(iter(built.get_train_dataloader())))
    chosen = [(rows.prompt_ids[n], rows.chosen_ids[n]) for n in planned.order[: cfg.batch_size]]
    total, count = 0.0, 0
    for prompt, answer in chosen:
        logits = row_logits(adapted.peft, prompt + answer)
        log_probs = logits.log_softmax(-1)[len(prompt) - 1 : -1]
        total -= float(log_probs[range(len(answer)), answer].sum())
        count += len(answer)
    with torch.no_grad():
        found = float(built.compute_loss(built.model, inputs))
    assert found == pytest.approx(math.log(2) + weight * total / count, abs=1e-3)
    assert first_loss(built) == pytest.approx(math.log(2), abs=1e-6)
    assert built.loss_weights == [1.0, weight]


def test_the_trainer_sees_our_ids_unchanged(trainer):
    rows, order, built = trainer
    batch = next(iter(built.get_train_dataloader()))
    for place, number in enumerate(order[:4]):
        prompt = rows.prompt_ids[number]
        for half, answer in ((0, rows.chosen_ids[number]), (4, rows.rejected_ids[number])):
            ids = batch["input_ids"][half + place]
            mask = batch["completion_mask"][half + place].bool()
            length = len(prompt) + len(answer)
            assert ids[:length].tolist() == prompt + answer
            assert ids[mask].tolist() == answer


def test_a_wrong_reference_is_found_before_the_first_step(trainer):
    *_, built = trainer
    assert first_loss(built) == pytest.approx(math.log(2), abs=1e-6)
    with torch.no_grad():
        for name, parameter in built.model.named_parameters():
            if "lora_B.default" in name:
                parameter.add_(0.05)
    with pytest.raises(PreflightError, match=r"instead of ln 2 = 0\.6931"):
        first_loss(built)


def test_the_reference_adapter_is_frozen(trainer):
    *_, built = trainer
    optimized = {id(p) for group in built.optimizer.param_groups for p in group["params"]}
    names = [n for n, p in built.model.named_parameters() if id(p) in optimized]
    assert names
    assert not [name for name in names if ".ref." in name]


def test_the_reference_does_not_move_while_the_policy_trains(trainer):
    *_, built = trainer
    inputs = next(iter(built.get_train_dataloader()))
    before = built.compute_ref_log_probs(built.model, inputs)
    with torch.no_grad():
        for group in built.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.add_(0.05)
    after = built.compute_ref_log_probs(built.model, inputs)
    assert torch.equal(torch.cat(before), torch.cat(after))


def test_a_checkpoint_without_adapter_gets_a_new_one(settings, sft_run, tmp_path, run_dpo):
    cfg = DPOConfig.build(
        {
            **settings,
            "model_path": sft_run / "final",
            "output_dir": tmp_path / "dpo",
            "max_steps": 2,
        }
    )
    run_dpo(cfg)
    assert read_json(tmp_path / "dpo" / "adapter" / "lumi.json")["base"]["path"].endswith("final")
    assert (
        read_json(tmp_path / "dpo" / "adapter" / "adapter_config.json")["modules_to_save"] is None
    )
    loaded = load_model(tmp_path / "dpo")
    rows = read_rows(PAIRS, cfg, loaded, loaded.template).heldout
    assert len(answer_likelihoods(loaded, rows)) == 2
