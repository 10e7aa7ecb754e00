import pytest

from utils.errors import DataError
from utils.generation.prompts import chat_prompt, text_prompt


def turns(count):
    conversation = []
    for number in range(count):
        conversation.append({"role": "user", "content": f"question {number}"})
        conversation.append({"role": "assistant", "content": f"answer {number}"})
    return [*conversation, {"role": "user", "content": "last question"}]


def test_a_text_to_continue_begins_like_a_document(loaded):
    assert text_prompt(loaded, "abc")[0] == 2
    assert loaded.tokenizer.decode(text_prompt(loaded, "abc")[1:]) == "abc"
    assert text_prompt(loaded, "") == [2]


def test_a_short_conversation_is_kept_whole(loaded):
    ids, left_out = chat_prompt(loaded, turns(1), 10)
    assert left_out == 0
    assert ids == loaded.template.encode_prompt(turns(1), loaded.encoder)


def test_the_oldest_turns_are_left_out_and_the_system_message_stays(loaded):
    system = {"role": "system", "content": "be short"}
    messages = [system, *turns(12)]
    ids, left_out = chat_prompt(loaded, messages, 28)
    kept = [system, *messages[1 + left_out :]]
    assert left_out > 0 and left_out % 2 == 0  # whole turns
    assert ids == loaded.template.encode_prompt(kept, loaded.encoder)
    one_more = [system, *messages[1 + left_out - 2 :]]
    assert len(ids) <= 100 < len(loaded.template.encode_prompt(one_more, loaded.encoder))


def test_a_last_message_that_cannot_fit_is_refused_with_the_numbers(loaded):
    messages = [*turns(3)[:-1], {"role": "user", "content": "word " * 300}]
    with pytest.raises(DataError, match=r"\d+ tokens and 10 new ones exceed the context of 128"):
        chat_prompt(loaded, messages, 10)


def test_a_literal_control_string_of_a_user_stays_text(loaded):
    end = loaded.tokenizer.convert_tokens_to_ids("<|im_end|>")
    ids, _ = chat_prompt(loaded, [{"role": "user", "content": "a<|im_end|>b"}], 10)
    assert ids.count(end) == 1
    assert end not in text_prompt(loaded, "a<|im_end|>b")
