"""Stage 02 with other packings, document masks, several data sets, and as Qwen3."""

import hashlib
import json

import pytest
import torch

from utils.config.pretrain import PretrainConfig
from utils.files import read_json, read_lines

TOY = dict(
    n_layer=1, d_model=32, n_head=2, d_ff=48, vocab_size=600, sequence_length=64, batch_size=4,
    gradient_accumulation_steps=2, warmup_steps=2, save_steps=4, eval_tokens=400, max_steps=6,
    logging_steps=1, cpu=True, compile=False, preflight=False,
)  # fmt: skip
MODES = [
    dict(packing="best_fit"),
    dict(document_mask=True),
    dict(packing="best_fit", document_mask=True, dropout=0.1, bf16=False),
    dict(architecture="qwen3"),
]

LONG_ROWS = dict(sequence_length=256, max_steps=4)
"""Of which almost every one ends in padding."""


def settings(folder, prepared_dir, **changes):
    return PretrainConfig(**(TOY | dict(data_dir=prepared_dir, output_dir=folder) | changes))


def weights_hash(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def losses(checkpoint):
    return [r["loss"] for r in read_lines(checkpoint.parent / "metrics.jsonl") if "loss" in r]


@pytest.fixture
def main(load_script):
    return load_script("02_pretrain").main


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: "-".join(map(str, mode.values())))
def test_resume_is_bit_identical_in_each_mode(mode, prepared_dir, tmp_path, main):
    cfg = settings(tmp_path / "a", prepared_dir, **mode)
    through = main(cfg)
    again = dict(output_dir=tmp_path / "b", resume_from_checkpoint=through.parent / "step_4")
    assert weights_hash(main(cfg.model_copy(update=again))) == weights_hash(through)


def test_padded_rows_give_the_same_losses_in_halved_micro_batches(prepared_dir, tmp_path, main):
    cfg = settings(tmp_path / "a", prepared_dir, packing="best_fit", bf16=False, **LONG_ROWS)
    halved = dict(output_dir=tmp_path / "b", batch_size=2, gradient_accumulation_steps=4)
    whole, parts = losses(main(cfg)), losses(main(cfg.model_copy(update=halved)))
    assert whole == pytest.approx(parts, abs=2e-5)


def test_the_loss_of_padded_rows_is_the_mean_over_exactly_their_targets(
    prepared_dir, tmp_path, main
):
    from utils.data.tokens.rows import PackedDataset
    from utils.model.architecture import build_model

    cfg = settings(tmp_path, prepared_dir, packing="best_fit", bf16=False, **LONG_ROWS)
    first = losses(main(cfg))[0]
    data = PackedDataset.open(prepared_dir, "train", cfg.sequence_length, packing="best_fit")
    batch = data.batch(cfg.seed, 0, 8)
    targets = torch.where(batch == 3, -100, batch)
    wanted = build_model(cfg, cfg.seed)(input_ids=batch, labels=targets).loss.item()
    assert (batch == 3).sum() == 102 and first == pytest.approx(wanted, abs=2e-6)


@pytest.mark.parametrize("packing", ["end_to_end", "best_fit"])
def test_run_json_and_metrics_account_for_each_folder(prepared_dir, tmp_path, main, packing):
    from utils.data.tokens.rows import PackedDataset

    cfg = settings(
        tmp_path, prepared_dir, data_dir=None, data_dirs=(prepared_dir, prepared_dir),
        data_weights=(3.0, 1.0), packing=packing,
    )  # fmt: skip
    run = main(cfg).parent
    summary = read_json(run / "run.json")["summary"]
    data = PackedDataset.open([prepared_dir, prepared_dir], "train", 64, (3, 1), packing)
    source, rows = data.order(cfg.seed, torch.arange(6 * 8).numpy().astype("uint64"))
    counted = [
        int((data.sources[number].rows(rows[source == number]) != 3).sum()) for number in (0, 1)
    ]
    assert [part["tokens"] for part in summary["sources"]] == counted
    assert [part["rows"] for part in summary["sources"]] == [
        int((source == number).sum()) for number in (0, 1)
    ]
    assert summary["tokens"] == sum(counted)
    last = [record for record in read_lines(run / "metrics.jsonl") if "loss" in record][-1]
    name = prepared_dir.name
    assert [last[f"tokens_{number}_{name}"] for number in (0, 1)] == counted


def test_data_seen_more_than_once_are_announced(prepared_dir, tmp_path, main, caplog):
    caplog.set_level("INFO")
    long = dict(num_train_epochs=1.5, sequence_length=1024, max_steps=None)
    main(settings(tmp_path, prepared_dir, **long))
    assert "its rows are seen 1.5 times in this run" in caplog.text


def test_a_resident_feed_gives_the_same_model(prepared_dir, tmp_path, main, monkeypatch):
    from utils.training import setup
    from utils.training.step.feeding import AheadFeed, ResidentFeed

    plain = main(settings(tmp_path / "host", prepared_dir, packing="best_fit"))
    for kind in (ResidentFeed, AheadFeed):
        monkeypatch.setattr(
            setup, "open_feed", lambda data, device, kind=kind, **_: kind(data, device)
        )
        other = main(settings(tmp_path / kind.__name__, prepared_dir, packing="best_fit"))
        assert weights_hash(other) == weights_hash(plain)


@pytest.fixture(scope="module")
def qwen3(prepared_dir, tmp_path_factory):
    """A finished run of a toy Qwen3, preflight included."""
    import importlib

    changes = dict(architecture="qwen3", n_layer=2, num_key_value_heads=1, preflight=True)
    cfg = settings(tmp_path_factory.mktemp("qwen3"), prepared_dir, **changes)
    return importlib.import_module("scripts.02_pretrain").main(cfg)


def test_a_qwen3_checkpoint_is_one_for_plain_transformers(qwen3, prepared_dir):
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM, Qwen3ForCausalLM

    model = AutoModelForCausalLM.from_pretrained(qwen3)
    assert isinstance(model, Qwen3ForCausalLM) and model.config.tie_word_embeddings
    bare = Qwen3ForCausalLM(AutoConfig.from_pretrained(qwen3))
    weights = load_file(qwen3 / "model.safetensors")
    tied = {"lm_head.weight": weights["model.embed_tokens.weight"]}
    bare.load_state_dict({**weights, **tied}, strict=True)
    ids = torch.arange(4, 24)[None]
    assert torch.equal(bare.eval()(ids).logits, model.eval()(ids).logits)
    parameters = read_json(qwen3.parent / "run.json")["summary"]["parameters"]
    assert parameters == sum(part.numel() for part in model.parameters())


def test_a_qwen3_checkpoint_writes_what_transformers_writes(qwen3):
    from utils.generation.engine import generate_batch, stop_ids
    from utils.generation.sampling import Sampling
    from utils.model.checkpoints import load_model

    loaded = load_model(qwen3, device="cpu")
    prompts, limit = [[2, 20, 30], [2, *range(50, 70)], [7]], Sampling(max_new_tokens=20)
    together = generate_batch(loaded, prompts, limit)
    for prompt, batched in zip(prompts, together, strict=True):
        ids = loaded.model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=20, do_sample=False, eos_token_id=sorted(stop_ids(loaded)),
        )[0, len(prompt) :].tolist()  # fmt: skip
        wanted = ids[:-1] if ids[-1] in stop_ids(loaded) else ids
        assert generate_batch(loaded, [prompt], limit)[0].ids == batched.ids == wanted


@pytest.mark.slow
def test_a_qwen3_checkpoint_goes_through_03_05_and_06(qwen3, prepared_dir, run_script, tmp_path):
    chats = tmp_path / "chats.json"
    rows = [{"prompt": f"{a} + {b}?", "response": f"{a + b}"} for a in range(9) for b in range(9)]
    chats.write_text(json.dumps(rows))
    tuned = run_script(
        "03_sft", "--model_path", qwen3, "--dataset_path", chats, "--output_dir", "sft",
        "--max_steps", 3, "--no_decontaminate", "--batch_size", 4,
    )  # fmt: skip
    assert tuned.returncode == 0, tuned.stderr
    found = read_json(tmp_path / "sft" / "final" / "config.json")
    assert found["model_type"] == "qwen3" and found["tie_word_embeddings"]
    done = run_script(
        "05_evaluate", "--model_path", "sft", "--output_dir", "out", "--corpus_dir", prepared_dir,
        "--fast_mode", "--max_new_tokens", 8, "--cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = read_json(tmp_path / "out" / "evaluation_results.json")["results"]
    assert results["heldout"]["status"] == results["smoke"]["status"] == "ok"
    chat = run_script("06_serve", "--model_path", "sft", "--max_new_tokens", 8, stdin="hi\n/exit\n")
    assert chat.returncode == 0, chat.stderr
