"""Bits per byte against a plain computation with all logits."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from utils.config.model import ModelConfig
from utils.data.tokens.shards import TokenShards, iter_documents
from utils.model.architecture import build_model
from utils.training.step.validation import ValidationSet, bits_per_byte

TOY = ModelConfig(n_layer=1, d_model=32, n_head=2, d_ff=48, vocab_size=600, sequence_length=32)


def test_each_token_is_scored_once_from_the_one_before(prepared_dir):
    data = ValidationSet.open([prepared_dir], 32, 10**9)
    tokens = np.asarray(TokenShards.open(prepared_dir, "val").tokens[:])
    known = data.targets[data.targets >= 0]
    assert known.tolist() == tokens.tolist()
    assert data.inputs.flatten()[: len(tokens)].tolist() == [2, *tokens[:-1].tolist()]
    texts = [row["text"] for row in iter_documents(prepared_dir, "val")]
    assert data.text_bytes == sum(len(text.encode()) for text in texts)


def test_only_whole_documents_are_taken(prepared_dir):
    data = ValidationSet.open([prepared_dir], 32, 500)
    offsets = TokenShards.open(prepared_dir, "val").document_offsets[:].tolist()
    assert data.tokens in offsets and data.tokens <= 500
    assert ValidationSet.open([prepared_dir], 32, 1).tokens == offsets[1]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_bits_per_byte_equal_a_plain_computation(prepared_dir, batch_size):
    model = build_model(TOY).train()
    data = ValidationSet.open([prepared_dir], 32, 500)
    with torch.no_grad():
        logits = model(data.inputs).logits
        nats = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), data.targets.flatten(), reduction="sum"
        )
    found, scored = bits_per_byte(model, data, batch_size)
    assert found == pytest.approx(nats.item() / math.log(2) / data.text_bytes, rel=1e-5)
    assert scored == data.tokens and model.training


def test_an_early_end_gives_the_value_of_what_was_scored(prepared_dir):
    model = build_model(TOY)
    data = ValidationSet.open([prepared_dir], 32, 500)
    part, scored = bits_per_byte(model, data, 4, lambda batches: batches == 1)
    whole, _ = bits_per_byte(model, data, 4)
    assert scored == 4 * 32 and part == pytest.approx(whole, rel=0.05)  # untrained: near ln V


def test_with_a_mask_each_document_is_scored_without_the_others(prepared_dir):
    config = TOY.model_copy(update={"sequence_length": 4096})
    model = build_model(config).eval()
    data = ValidationSet.open([prepared_dir], 4096, 2000, document_mask=True)
    shards = TokenShards.open(prepared_dir, "val")
    ends = [end for end in shards.document_offsets[:].tolist() if end <= data.tokens]
    nats = 0.0
    for start, end in pairwise(ends):
        ids = torch.tensor([2, *shards.tokens[start:end].tolist()])  # behind EOS, as BOS
        with torch.no_grad():
            logits = model(ids[None, :-1]).logits[0]
        nats += torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum").item()
    found, _ = bits_per_byte(model, data, 1)
    assert found == pytest.approx(nats / math.log(2) / data.text_bytes, rel=1e-5)
    assert len(ends) > 3
