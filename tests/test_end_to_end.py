"""All six scripts on a slice of real text, asked what a broken pipeline cannot answer."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]
QUESTION = "What does json.dumps do?"
DOCUMENTS = 12_000


def run(work, *command, stdin=None, timeout=900):
    program = [sys.executable, *map(str, command)]
    done = subprocess.run(
        program, cwd=work, capture_output=True, text=True, input=stdin, timeout=timeout
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def summary(folder):
    return json.loads((folder / "run.json").read_text())["summary"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """Train a small model from the docstrings of this environment, stage by stage."""
    work = tmp_path_factory.mktemp("pipeline")
    script = {path.name[:2]: path for path in (ROOT / "scripts").glob("0?_*.py")}
    corpus, ckpt = work / "data/processed/pydocs", work / "checkpoints"
    run(work, script["01"], "--config", ROOT / "config/datasets/pydocs.json",
        "--max_samples", DOCUMENTS, "--vocab_size", 4096)  # fmt: skip
    env = {"cwd": work, "PYTHONPATH": str(ROOT)}
    samples = ["-c", "import sys; sys.path.insert(0, sys.argv.pop(1)); import runpy; "
               "runpy.run_module('utils.data.builtin.practice_sets', run_name='__main__')", ROOT]  # fmt: skip # noqa: E501
    run(work, *samples, "--num_sft", 2500, "--num_dpo", 2400, "--num_heldout", 200)
    run(work, script["02"], "--config", ROOT / "config/nano.json", "--max_steps", 500,
        "--save_steps", 1000, "--seed", 1)  # fmt: skip
    run(work, script["03"], "--config", ROOT / "config/sft.json", "--num_train_epochs", 2,
        "--model_path", ckpt / "pretrain/nano")  # fmt: skip
    run(work, script["04"], "--config", ROOT / "config/dpo.json")
    run(work, script["05"], "--fast_mode", "--skip_perplexity", "--output_dir", work / "result")
    chat = run(work, script["06"], "--max_new_tokens", 40, stdin=f"{QUESTION}\n/exit\n")
    results = json.loads((work / "result/evaluation_results.json").read_text())["results"]
    return SimpleNamespace(
        work=work, corpus=corpus, checkpoints=ckpt, results=results, chat=chat, env=env,
        pretrain=summary(ckpt / "pretrain/nano"), sft=summary(ckpt / "sft"),
        dpo=summary(ckpt / "dpo"),
    )  # fmt: skip


def test_the_model_beats_the_bigram_on_held_out_text(pipeline):
    from utils.evaluation.baselines import fit_and_score

    settings = json.loads((pipeline.checkpoints / "pretrain/nano/run.json").read_text())["settings"]
    baselines = fit_and_score(pipeline.corpus, max_val_tokens=settings["eval_tokens"])
    assert pipeline.pretrain["val_bpb"] < baselines.bigram_bpb < baselines.unigram_bpb


def test_the_result_file_holds_the_held_out_text_with_its_baselines(pipeline):
    heldout = pipeline.results["heldout"]["measures"]
    assert 0 < heldout["bits_per_byte"]["value"] < heldout["unigram_bits_per_byte"]


def test_fine_tuning_lowers_the_held_out_loss_and_answers_end_by_themselves(pipeline):
    assert pipeline.sft["heldout_loss_after"] < pipeline.sft["heldout_loss_before"] - 0.5
    assert pipeline.sft["stop_rate"] >= 0.9  # a lost stop token gives 0


def test_alignment_starts_at_ln_2_and_raises_the_held_out_accuracy(pipeline):
    assert pipeline.dpo["first_loss"] == pytest.approx(0.6931, abs=1e-3)
    assert pipeline.dpo["heldout_accuracy_after"] >= pipeline.dpo["heldout_accuracy_before"]
    assert pipeline.dpo["heldout_reward_accuracy"] > 0.6  # 0 for a model that did not move


def test_plain_transformers_gives_the_text_that_serve_gives(pipeline):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = pipeline.checkpoints / "dpo/final"
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}],
        add_generation_prompt=True, return_tensors="pt", return_dict=True,
    )  # fmt: skip
    ids = model.generate(**prompt, max_new_tokens=40, do_sample=False)[
        0, prompt.input_ids.shape[1] :
    ]
    answer = tokenizer.decode(ids, skip_special_tokens=True).strip()
    assert answer and answer in pipeline.chat


def test_every_folder_is_whole_and_nothing_temporary_is_left(pipeline):
    from utils.files import folder_damage

    for manifest in pipeline.work.rglob("manifest.json"):
        assert folder_damage(manifest.parent) is None
    assert not list(pipeline.work.rglob(".tmp-*")) and not list(pipeline.work.rglob(".lock-*"))


def test_what_cannot_be_measured_offline_is_not_run_and_has_no_number(pipeline):
    for name in ("boolq", "lambada"):
        assert pipeline.results[name]["status"] == "not run"
        assert pipeline.results[name]["reason"] and "measures" not in pipeline.results[name]


def test_a_second_run_moves_the_finished_one_aside(pipeline):
    before = summary(pipeline.checkpoints / "dpo")
    run(pipeline.work, ROOT / "scripts/04_dpo.py", "--max_steps", 2, "--no_preflight")
    aside = [path for path in pipeline.checkpoints.glob("dpo.*") if path.is_dir()]
    assert len(aside) == 1 and summary(aside[0]) == before
