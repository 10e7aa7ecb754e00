import pytest

from utils.chat.layouts import conversation, preference
from utils.errors import DataError

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello."}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "response": "Hello."},
        {"prompt": "Hi", "completion": "Hello."},
        {"prompt": [USER], "response": "Hello."},
        {"messages": [USER, ANSWER]},
        {"instruction": "Hi", "input": "", "output": "Hello."},
        {
            "conversations": [
                {"from": "human", "value": "Hi"},
                {"from": "gpt", "value": "Hello."},
            ]
        },
    ],
)
def test_every_layout_gives_the_same_conversation(row):
    assert conversation(row) == [USER, ANSWER]


def test_the_input_of_alpaca_follows_the_instruction():
    row = {"instruction": "Fix it.", "input": "freind", "output": "friend"}
    assert conversation(row)[0]["content"] == "Fix it.\n\nfreind"


def test_a_system_text_comes_first():
    row = {"system": "Be brief.", "prompt": "Hi", "response": "Hello."}
    assert [message["role"] for message in conversation(row)] == ["system", "user", "assistant"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("text", "found str"),
        ({"text": "Hi"}, "unknown layout (keys: text)"),
        ({"prompt": "Hi"}, "no answer"),
        ({"prompt": "Hi", "response": "  "}, "response is empty"),
        ({"prompt": 3, "response": "x"}, "prompt is int"),
        ({"messages": [USER, {"role": "tool", "content": "x"}]}, "role 'tool'"),
        ({"messages": [ANSWER]}, "begins with an answer"),
        ({"messages": [USER, {"role": "assistant"}]}, "has no text"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(row, reason):
    with pytest.raises(DataError) as error:
        conversation(row)
    assert reason in str(error.value)


def test_the_two_dialogues_of_hh_rlhf_are_cut_at_their_last_answer():
    row = {
        "chosen": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Why?\n\nAssistant: Because.",
        "rejected": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Why?\n\nAssistant: No.",
    }
    found = preference(row)
    assert found.prompt == [USER, ANSWER, {"role": "user", "content": "Why?"}]
    assert (found.chosen, found.rejected) == ("Because.", "No.")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "chosen": "A", "rejected": "B"},
        {"prompt": [USER], "chosen": [{"role": "assistant", "content": "A"}], "rejected": "B"},
        {"instruction": "Hi", "input": "", "output": "A", "chosen": "A", "rejected": "B"},
        {
            "conversations": [{"from": "human", "value": "Hi"}],
            "chosen": {"from": "gpt", "value": "A"},
            "rejected": {"from": "gpt", "value": "B"},
        },
        {
            "chosen": [USER, {"role": "assistant", "content": "A"}],
            "rejected": [USER, {"role": "assistant", "content": "B"}],
        },
    ],
)
def test_every_layout_gives_the_same_preference(row):
    found = preference(row)
    assert (found.prompt, found.chosen, found.rejected) == ([USER], "A", "B")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Hi", "chosen": "A"}, "rejected is missing"),
        ({"prompt": "Hi", "chosen": "A", "rejected": " "}, "empty"),
        ({"prompt": [USER, ANSWER], "chosen": "A", "rejected": "B"}, "end with a user message"),
        ({"chosen": "plain", "rejected": "text"}, "no Human/Assistant dialogue"),
        (
            {
                "chosen": "\n\nHuman: Hi\n\nAssistant: A",
                "rejected": "\n\nHuman: Ho\n\nAssistant: B",
            },
            "differ before",
        ),
    ],
)
def test_a_preference_that_cannot_be_used_says_why(row, reason):
    with pytest.raises(DataError) as error:
        preference(row)
    assert reason in str(error.value)
