"""A checkpoint in plain transformers: every weight fits, and the loss is the one reported."""

import importlib
import math

import pytest
import torch
from safetensors.torch import load_model
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

from utils.config.pretrain import PretrainConfig
from utils.data.tokens.rows import PackedDataset
from utils.files import read_lines
from utils.training.step.validation import ValidationSet

SETTINGS = dict(
    n_layer=2, d_model=32, n_head=2, d_ff=48, vocab_size=600, sequence_length=32, batch_size=4,
    gradient_accumulation_steps=2, warmup_steps=2, save_steps=1, eval_tokens=400, max_steps=4,
    cpu=True, compile=False, preflight=False, bf16=False,
)  # fmt: skip


@pytest.mark.parametrize("tie", [True, False])
def test_it_loads_strictly_and_gives_the_loss_that_was_reported(tie, prepared_dir, tmp_path):
    main = importlib.import_module("scripts.02_pretrain").main
    settings = dict(data_dir=prepared_dir, output_dir=tmp_path, tie_embeddings=tie)
    run = main(PretrainConfig(**SETTINGS | settings)).parent
    records = read_lines(run / "metrics.jsonl")
    losses = {record["step"]: record["loss"] for record in records if "loss" in record}

    model = plain(run / "step_3")
    ids = PackedDataset.open((prepared_dir,), "train", 32).batch(42, 3 * 8, 8)  # (B, T)
    with torch.no_grad():
        loss = model(input_ids=ids, labels=ids).loss.item()
    assert loss == pytest.approx(losses[4], abs=1e-5)

    model, nats = plain(run / "final"), 0.0
    data = ValidationSet.open((prepared_dir,), 32, 400)
    for inputs, targets in data.batches(8):
        with torch.no_grad():
            logits = model(input_ids=inputs).logits
        nats += cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").item()
    reported = [record["val_bpb"] for record in records if "val_bpb" in record][-1]
    assert nats / math.log(2) / data.text_bytes == pytest.approx(reported, abs=1e-5)


def plain(folder):
    model, told = LlamaForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    again = LlamaForCausalLM(model.config)
    again.load_state_dict(model.state_dict(), strict=True)
    load_model(again, folder / "model.safetensors", strict=True)
    return again.eval()
