"""Conversations are proved with real templates; lost masks and changed layouts are found."""

import pytest

from utils.chat.layouts import Preference
from utils.chat.rows import IGNORE, build_dpo_rows, build_sft_rows
from utils.chat.templates import TEMPLATES, TextEncoder
from utils.preflight.chat import (
    answers_are_learned,
    chat_template_agrees,
    preferences_are_learnable,
    training_equals_serving,
)
from utils.tokenizers.transformers_files import load_hf_tokenizer

CONVERSATIONS = [
    [
        {"role": "user", "content": "What does json.dumps do?"},
        {"role": "assistant", "content": "Serialize obj to a JSON formatted str."},
    ],
    [
        {"role": "system", "content": "Answer in one word."},
        {"role": "user", "content": "Is len a function?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "And str?"},
        {"role": "assistant", "content": "No."},
    ],
]
PAIRS = [Preference(CONVERSATIONS[0][:1], "Makes a string.", "Reads a file.")]


@pytest.fixture(scope="module")
def encoder(tokenizer_dir):
    return TextEncoder(load_hf_tokenizer(tokenizer_dir))


@pytest.fixture(params=["chatml", "instruct", "chat"])
def template(request):
    return TEMPLATES[request.param]


def sft_rows(template, encoder):
    return build_sft_rows(CONVERSATIONS, template, encoder, 512)


def test_real_rows_learn_the_answer_and_its_end(template, encoder):
    result = answers_are_learned(sft_rows(template, encoder), template.stop_id(encoder))
    assert result.ok, result.line()


def lose_mask(labels, ids):
    return [IGNORE] * len(labels)


def lose_stop(labels, ids):
    return [*labels[:-1], IGNORE]


def shift(labels, ids):
    return [*labels[1:], IGNORE]


@pytest.mark.parametrize("damage", [lose_mask, lose_stop, shift])
def test_a_broken_mask_is_found_and_its_row_named(template, encoder, damage):
    rows = sft_rows(template, encoder)
    rows.labels[1] = damage(rows.labels[1], rows.input_ids[1])
    result = answers_are_learned(rows, template.stop_id(encoder))
    assert not result.ok
    assert result.measured == "1 of 2 rows wrong, the first is row 2"


def test_rows_that_were_all_cut_prove_nothing(template, encoder):
    rows = build_sft_rows(CONVERSATIONS, template, encoder, 3)
    assert not answers_are_learned(rows, template.stop_id(encoder)).ok


def test_serving_asks_as_training_did(template, encoder):
    def serve(messages):
        return template.encode_prompt(messages, encoder)

    assert training_equals_serving(CONVERSATIONS, template, encoder, serve).ok


def test_serving_with_another_template_is_found(template, encoder):
    for other in TEMPLATES.values():
        if other.name != template.name:
            result = training_equals_serving(
                CONVERSATIONS,
                template,
                encoder,
                lambda messages, other=other: other.encode_prompt(messages, encoder),
            )
            assert not result.ok


def test_a_prompt_that_lacks_its_last_token_is_found(template, encoder):
    def short(messages):
        return template.encode_prompt(messages, encoder)[:-1]

    assert not training_equals_serving(CONVERSATIONS, template, encoder, short).ok


def jinja(encoder, text):
    def apply(messages):
        tokenizer = encoder.tokenizer
        rendered = tokenizer.apply_chat_template(
            messages, chat_template=text, add_generation_prompt=True, tokenize=False
        )
        return tokenizer.encode(rendered, add_special_tokens=False)

    return apply


def test_other_programs_ask_alike(template, encoder):
    apply = jinja(encoder, template.jinja)
    assert chat_template_agrees(CONVERSATIONS, template, encoder, apply).ok


def test_a_changed_chat_template_is_found(template, encoder):
    apply = jinja(encoder, template.jinja.replace("m['content']", "m['content'] | upper"))
    assert not chat_template_agrees(CONVERSATIONS, template, encoder, apply).ok


def test_real_pairs_are_learnable(template, encoder):
    rows = build_dpo_rows(PAIRS, template, encoder, 512)
    assert preferences_are_learnable(rows, template.stop_id(encoder)).ok


@pytest.mark.parametrize("damage", ["equal", "no stop", "no prompt"])
def test_pairs_that_teach_nothing_are_found(template, encoder, damage):
    rows = build_dpo_rows(PAIRS, template, encoder, 512)
    if damage == "equal":
        rows.rejected_ids[0] = rows.chosen_ids[0]
    elif damage == "no stop":
        rows.rejected_ids[0] = rows.rejected_ids[0][:-1]
    else:
        rows.prompt_ids[0] = []
    assert not preferences_are_learnable(rows, template.stop_id(encoder)).ok
