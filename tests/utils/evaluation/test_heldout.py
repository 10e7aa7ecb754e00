import copy
import json
import math

import numpy as np
import pytest
import torch

from utils.chat.layouts import conversation
from utils.chat.rows import build_sft_rows
from utils.chat.templates import TEMPLATES
from utils.errors import DataError
from utils.evaluation.heldout import (
    answer_loss,
    answer_rates,
    first_prompts,
    heldout_bits_per_byte,
    stream_rows,
)
from utils.model.checkpoints import LoadedModel, load_model

ROWS = [
    {"prompt": "What does len do?", "response": "It returns the number of items."},
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
]


def encoded(loaded, rows, template="chatml"):
    conversations = [conversation(row) for row in rows]
    length = loaded.context_length
    return build_sft_rows(conversations, TEMPLATES[template], loaded.encoder, length)


def asked(text):
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def loaded(checkpoint_dir):
    return load_model(checkpoint_dir, device="cpu")


@pytest.fixture(scope="module")
def knows_nothing(loaded):
    """The same checkpoint with all logits equal: every token costs ln 600."""
    model = type(loaded.model)(loaded.model.config).eval()
    torch.nn.init.zeros_(model.get_input_embeddings().weight)
    model.generation_config = loaded.model.generation_config
    return LoadedModel(model, loaded.tokenizer, loaded.folder, loaded.card)


def val_split(prepared_dir):
    tokens = np.fromfile(prepared_dir / "tokens/val_00000.bin", "<u2")
    lines = (prepared_dir / "val_00000.jsonl").read_text(encoding="utf-8").splitlines()
    return tokens, [len(json.loads(line)["text"].encode()) for line in lines]


def test_a_model_that_knows_nothing_needs_log2_v_bits_a_token(knows_nothing, prepared_dir):
    tokens, sizes = val_split(prepared_dir)
    found = heldout_bits_per_byte(knows_nothing, prepared_dir)
    assert (found.tokens, found.bytes, found.documents) == (len(tokens), sum(sizes), len(sizes))
    assert found.bits_per_byte == pytest.approx(math.log2(600) * len(tokens) / sum(sizes))
    assert found.interval.low < found.bits_per_byte < found.interval.high
    assert found.is_whole_split


def test_bits_per_byte_equal_a_plain_forward_pass(loaded, prepared_dir):
    tokens, sizes = val_split(prepared_dir)
    stream = [2, *tokens.tolist()]
    nats = 0.0
    with torch.no_grad():
        for start in range(0, len(tokens), 128):
            row = torch.tensor([stream[start : start + 129]])
            logits = loaded.model(input_ids=row[:, :-1]).logits[0]
            nats += float(torch.nn.functional.cross_entropy(logits, row[0, 1:], reduction="sum"))
    found = heldout_bits_per_byte(loaded, prepared_dir)
    assert found.nats == pytest.approx(nats, rel=1e-5)
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / sum(sizes), rel=1e-5)


def test_a_token_limit_keeps_whole_documents_and_at_least_one(knows_nothing, prepared_dir):
    tokens, sizes = val_split(prepared_dir)
    ends = (np.flatnonzero(tokens == 2) + 1).tolist()
    three = heldout_bits_per_byte(knows_nothing, prepared_dir, max_tokens=ends[2])
    assert (three.documents, three.tokens, three.bytes) == (3, ends[2], sum(sizes[:3]))
    assert not three.is_whole_split
    assert heldout_bits_per_byte(knows_nothing, prepared_dir, max_tokens=1).documents == 1


def test_a_bare_model_and_bf16_autocast_are_close_to_fp32(loaded, prepared_dir):
    exact = heldout_bits_per_byte(loaded, prepared_dir, max_tokens=1000)
    quick = heldout_bits_per_byte(
        loaded.model, prepared_dir, max_tokens=1000, autocast=torch.bfloat16
    )
    assert quick.bits_per_byte == pytest.approx(exact.bits_per_byte, rel=1e-3)


def test_rows_score_each_token_once_after_the_one_before():
    assert stream_rows(np.array([10, 11, 2, 12, 2]), 3, 2) == [
        ([2, 10, 11], [10, 11, 2]),
        ([2, 12], [12, 2]),
    ]


def test_another_tokenizer_is_refused_by_name(loaded, prepared_dir):
    card = {**loaded.card, "tokenizer_sha256": "f" * 64}
    stranger = LoadedModel(loaded.model, loaded.tokenizer, loaded.folder, card)
    with pytest.raises(DataError, match="trained with tokenizer ffffffffffff"):
        heldout_bits_per_byte(stranger, prepared_dir)


def test_the_loss_is_the_mean_over_answer_tokens(loaded, knows_nothing):
    loss = answer_loss(knows_nothing, encoded(knows_nothing, ROWS))
    assert (loss.value, loss.count) == (pytest.approx(math.log(600), abs=1e-5), 2)
    template = TEMPLATES["chatml"]
    nats, tokens = 0.0, 0
    for row in ROWS:
        *history, last = conversation(row)
        prompt = template.encode_prompt(history, loaded.encoder)
        answer = template.encode_answer(last["content"], loaded.encoder)
        with torch.no_grad():
            logits = loaded.model(input_ids=torch.tensor([prompt + answer[:-1]])).logits[0]
        log_probs = torch.log_softmax(logits[len(prompt) - 1 :], dim=-1)
        nats -= float(log_probs[range(len(answer)), answer].sum())
        tokens += len(answer)
    assert answer_loss(loaded, encoded(loaded, ROWS)).value == pytest.approx(
        nats / tokens, rel=1e-5
    )


def test_conversations_that_do_not_fit_are_left_out(loaded):
    long = {"prompt": "why " * 200, "response": "because"}
    assert answer_loss(loaded, encoded(loaded, [*ROWS, long])).count == 2
    with pytest.raises(DataError, match="none of 1 conversations fits into 128 tokens"):
        answer_loss(loaded, encoded(loaded, [long]))


def test_another_layout_can_be_asked_for(loaded):
    chatml = answer_loss(loaded, encoded(loaded, ROWS))
    assert answer_loss(loaded, encoded(loaded, ROWS, "instruct")).value != chatml.value


def test_the_stop_rate_counts_answers_that_end_by_themselves(knows_nothing, loaded):
    # equal logits: greedy always writes token 0 (<unk>) and never stops
    never = answer_rates(knows_nothing, [asked("Hi"), asked("Yes?")], 8)
    assert (never.stopped.value, never.stopped.count) == (0.0, 2)
    assert answer_rates(loaded, [asked("Hi"), asked("why " * 200)], 8).stopped.count == 1
    with pytest.raises(DataError, match="none of 1 prompts leaves room"):
        answer_rates(loaded, [asked("why " * 200)], 8)


def test_a_model_that_always_stops_ends_every_answer_and_all_are_empty(knows_nothing):
    model = type(knows_nothing.model)(knows_nothing.model.config).eval()
    model.generation_config = copy.deepcopy(knows_nothing.model.generation_config)
    model.generation_config.eos_token_id = 0
    torch.nn.init.zeros_(model.get_input_embeddings().weight)
    stops = LoadedModel(model, knows_nothing.tokenizer, knows_nothing.folder, knows_nothing.card)
    rates = answer_rates(stops, [asked("Hi")] * 3, 8)
    assert (rates.stopped.value, rates.empty.value, rates.empty.count) == (1.0, 1.0, 3)


def test_prompts_end_before_the_first_answer_and_come_once():
    user, answer = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
    assert first_prompts([[user, answer, user, answer], [user, answer]], 9) == [[user]]
