from dataclasses import replace

import pytest
import torch

from utils.errors import DataError
from utils.generation import engine
from utils.generation.engine import (
    Stream,
    answer,
    answer_stream,
    generate_batch,
    stop_ids,
)
from utils.generation.sampling import Sampling

LENGTHS = (3, 17, 1, 30, 17, 8, 64, 5, 21, 40)
SETTINGS = Sampling(max_new_tokens=48)


@pytest.fixture(scope="module")
def prompts():
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(52, 600, (n,), generator=generator).tolist() for n in LENGTHS]


def oracle(loaded, prompt, max_new_tokens=48):
    """Hugging Face's own greedy generation, without its stop token; and whether there was one."""
    ids = loaded.model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=sorted(stop_ids(loaded)),
    )[0, len(prompt) :].tolist()
    stopped = ids[-1] in stop_ids(loaded)
    return (ids[:-1] if stopped else ids), stopped


def generate(loaded, prompt, settings):
    """Write one answer by itself."""
    pieces = Stream(loaded, prompt, settings)
    list(pieces)
    return pieces.result


def test_greedy_answers_equal_transformers_one_by_one_and_in_a_batch(loaded, prompts):
    together = generate_batch(loaded, prompts, SETTINGS)
    stops = []
    for prompt, batched in zip(prompts, together, strict=True):
        ids, stopped = oracle(loaded, prompt)
        alone = generate(loaded, prompt, SETTINGS)
        assert alone == batched
        assert (alone.ids, alone.stopped) == (ids, stopped)
        assert alone.text == loaded.tokenizer.decode(ids, skip_special_tokens=True)
        stops.append(stopped)
    assert True in stops and False in stops  # both ways of ending were tried
    assert len({tuple(result.ids) for result in together}) == len(prompts)


def test_a_batch_larger_than_the_limit_is_the_same(loaded, prompts, monkeypatch):
    whole = generate_batch(loaded, prompts, SETTINGS)
    monkeypatch.setattr(engine, "MAX_BATCH_ROWS", 3)
    assert generate_batch(loaded, prompts, SETTINGS) == whole
    monkeypatch.setattr(engine, "MAX_BATCH_TOKENS", 1)
    assert generate_batch(loaded, prompts[:2], SETTINGS) == whole[:2]


def test_no_prompts_give_no_answers(loaded):
    assert generate_batch(loaded, [], SETTINGS) == []


def test_sampled_answers_repeat_with_their_seed_also_in_a_batch(loaded, prompts):
    settings = Sampling(temperature=1.0, top_p=0.9, max_new_tokens=20, seed=7)
    first = generate(loaded, prompts[1], settings)
    assert generate_batch(loaded, prompts[:3], settings)[1] == first
    assert generate(loaded, prompts[1], replace(settings, seed=8)) != first


def test_a_stream_gives_the_text_in_pieces(loaded, prompts):
    pieces = Stream(loaded, prompts[3], SETTINGS)
    given = list(pieces)
    assert len(given) > 3
    assert "".join(given) == pieces.result.text
    assert pieces.result == generate(loaded, prompts[3], SETTINGS)


def test_an_answer_can_be_cancelled(loaded, prompts):
    asked = []
    pieces = Stream(loaded, prompts[3], SETTINGS, lambda: len(asked) > 3 or asked.append(1))
    list(pieces)
    assert len(pieces.result.ids) == 4
    assert not pieces.result.stopped


def test_a_stop_text_ends_the_answer(loaded, prompts):
    whole = generate(loaded, prompts[3], SETTINGS).text
    mark = whole[len(whole) // 2 :][:4]
    result = generate(loaded, prompts[3], replace(SETTINGS, stop=(mark,)))
    assert result.stopped
    assert result.text == whole[: whole.index(mark)]


@pytest.mark.parametrize("call", [generate, Stream])
def test_a_prompt_without_room_is_refused_with_the_numbers(loaded, call):
    with pytest.raises(DataError, match="100 tokens and 48 new ones exceed the context of 128"):
        call(loaded, [60] * 100, SETTINGS)
    with pytest.raises(DataError, match="prompt is empty"):
        call(loaded, [], SETTINGS)


def test_the_context_can_be_filled_to_the_last_token(loaded):
    result = generate(loaded, [60] * 80, SETTINGS)
    assert result.ids == oracle(loaded, [60] * 80)[0]


def test_an_answer_uses_the_template_of_the_checkpoint(loaded):
    messages = [{"role": "user", "content": "What does json do?"}]
    ids = loaded.template.encode_prompt(messages, loaded.encoder)
    assert answer(loaded, messages, SETTINGS) == generate(loaded, ids, SETTINGS)


def test_the_space_of_the_chat_template_is_no_part_of_the_answer(loaded):
    chat = replace(loaded, card={**loaded.card, "template": "chat"})
    messages = [{"role": "user", "content": "hi"}]
    pieces = answer_stream(chat, messages, SETTINGS)
    text = "".join(pieces)
    ids = chat.template.encode_prompt(messages, chat.encoder)
    assert text == pieces.result.text == generate(chat, ids, SETTINGS).text.removeprefix(" ")


def test_stop_tokens_are_those_of_the_model_and_of_the_template(loaded):
    end = loaded.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert {2, 40, end} <= stop_ids(loaded)


def test_a_model_in_training_is_left_in_training(loaded, prompts):
    expected = generate(loaded, prompts[0], SETTINGS)
    loaded.model.train()
    try:
        assert generate(loaded, prompts[0], SETTINGS) == expected
        assert loaded.model.training
    finally:
        loaded.model.eval()
