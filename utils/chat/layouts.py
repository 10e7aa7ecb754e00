"""Rows of public data sets to conversations and preferences: the only reader of their layouts.

A further layout is an entry of LAYOUTS, ANSWER_KEYS or SPEAKERS. Known are {prompt, response},
{messages}, Alpaca {instruction, input, output}, ShareGPT {conversations: [{from, value}]} and
{question, answer}; for preferences {prompt, chosen, rejected}, the same with the other prompts, and
the two whole dialogues of hh-rlhf.
Knows nothing about files, templates or tokens.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from utils.chat.templates import Message, check_messages
from utils.errors import DataError

Row = dict[str, Any]
SPEAKERS = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
"""Names of speakers in ShareGPT-like data, as roles."""
ANSWER_KEYS = ("response", "completion", "output", "answer")
DIALOGUE_TURN = re.compile(r"\n\n(Human|Assistant): ?")


@dataclass(frozen=True)
class Preference:
    """Two answers to one conversation, the first of which is the better one."""

    prompt: list[Message]
    chosen: str
    rejected: str


def conversation(row: object) -> list[Message]:
    """Return the messages of one row; at least one is a non-empty answer.

    Raises:
        DataError: the layout is unknown, a text is missing or empty, a role is unknown.
    """
    row = _mapping(row)
    messages = _prompt(row)
    key = next((key for key in ANSWER_KEYS if key in row), None)
    if key is not None and messages[-1:] and messages[-1]["role"] != "assistant":
        messages = [*messages, {"role": "assistant", "content": _text(row, key)}]
    check_messages(messages)
    answers = [message for message in messages if message["role"] == "assistant"]
    if not answers:
        raise DataError(f"no answer to learn from: give one of {', '.join(ANSWER_KEYS)}")
    if not all(message["content"].strip() for message in answers):
        raise DataError("an answer is empty")
    if messages[0]["role"] == "assistant":
        raise DataError("the conversation begins with an answer")
    return messages


def opening(messages: Sequence[Message]) -> list[Message]:
    """Return the messages in front of the first answer."""
    return list(takewhile(lambda message: message["role"] != "assistant", messages))


def question(row: object) -> str:
    """Return what the user asks first; the row needs no answer.

    Raises:
        DataError: the layout is unknown, or nothing is asked.
    """
    asked = [message for message in _prompt(_mapping(row)) if message["role"] == "user"]
    return _text({**asked[0]} if asked else {}, "content")


def preference(row: object) -> Preference:
    """Return the prompt and the two answers of one row.

    Raises:
        DataError: the layout is unknown, a text is missing or empty, the dialogues differ earlier.
    """
    row = _mapping(row)
    for key in ("chosen", "rejected"):
        if key not in row:
            raise DataError(f"{key} is missing")
    if _is_dialogue(row):
        prompt, chosen, rejected = _split_dialogues(row)
    else:
        prompt, chosen, rejected = _prompt_and_answers(row)
    check_messages(prompt)
    if prompt[-1]["role"] != "user":
        raise DataError("the prompt does not end with a user message")
    if not (chosen.strip() and rejected.strip()):
        raise DataError("chosen or rejected is empty")
    return Preference(prompt, chosen, rejected)


def _mapping(row: object) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"expected an object with keys, found {type(row).__name__}")
    return row


def _prompt(row: Row) -> list[Message]:
    """Return the messages in front of the answer (or all of them, where the layout holds all)."""
    key = next((key for key in LAYOUTS if key in row), None)
    if key is None:
        keys = ", ".join(map(str, row)) or "none"
        raise DataError(f"unknown layout (keys: {keys}): use prompt and response, or messages")
    messages = LAYOUTS[key](row, key)
    system = row.get("system")
    has_system = bool(messages) and messages[0]["role"] == "system"
    if isinstance(system, str) and system.strip() and not has_system:
        return [{"role": "system", "content": system}, *messages]
    return messages


def _alpaca(row: Row, key: str) -> list[Message]:
    instruction, extra = _text(row, key), row.get("input") or ""
    if not isinstance(extra, str):
        raise DataError(f"input is {type(extra).__name__} instead of text")
    content = f"{instruction}\n\n{extra}" if extra.strip() else instruction
    return [{"role": "user", "content": content}]


def _text_or_messages(row: Row, key: str) -> list[Message]:
    if isinstance(row[key], list):
        return _messages(row[key])
    return [{"role": "user", "content": _text(row, key)}]


def _all_messages(row: Row, key: str) -> list[Message]:
    return _messages(row[key])


LAYOUTS: dict[str, Callable[[Row, str], list[Message]]] = {
    "messages": _all_messages,
    "conversations": _all_messages,
    "prompt": _text_or_messages,
    "instruction": _alpaca,
    "question": _text_or_messages,
}
"""How the messages of a row are read, by the key that tells its layout; the first one counts."""


def _messages(value: object) -> list[Message]:
    """Return a list of messages from {role, content} or {from, value} entries."""
    if not isinstance(value, list):
        raise DataError(f"messages is {type(value).__name__} instead of a list")
    return [_message(entry) for entry in value]


def _message(entry: object) -> Message:
    entry = _mapping(entry)
    role = entry.get("role", entry.get("from"))
    content = entry.get("content", entry.get("value"))
    return {"role": SPEAKERS.get(str(role), str(role)), "content": content}  # type: ignore[dict-item]


def _text(row: Row, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise DataError(f"{key} is {type(value).__name__} instead of text")
    if not value.strip():
        raise DataError(f"{key} is empty")
    return value


def _is_dialogue(row: Row) -> bool:
    """Tell whether chosen and rejected hold the whole dialogue (hh-rlhf)."""
    return not any(key in row for key in LAYOUTS)


def _prompt_and_answers(row: Row) -> tuple[list[Message], str, str]:
    prompt = _prompt(row)
    chosen, rejected = _answer(row["chosen"], prompt), _answer(row["rejected"], prompt)
    return prompt, chosen, rejected


def _answer(value: object, prompt: list[Message]) -> str:
    """Return the text of an answer given as text, as a message, or as a list of messages."""
    if isinstance(value, str):
        return value
    messages = [_message(value)] if isinstance(value, dict) else _messages(value)
    if messages[: len(prompt)] == prompt:
        messages = messages[len(prompt) :]
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise DataError("chosen and rejected must each be one answer")
    return _text(dict(messages[0]), "content")


def _split_dialogues(row: Row) -> tuple[list[Message], str, str]:
    """Cut two dialogues that differ only in their last answer into prompt and answers."""
    chosen, rejected = (_dialogue(row[key], key) for key in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise DataError("the two dialogues differ before their last answer")
    for messages in (chosen, rejected):
        if len(messages) < 2 or messages[-1]["role"] != "assistant":
            raise DataError("a dialogue does not end with an answer")
    return chosen[:-1], chosen[-1]["content"], rejected[-1]["content"]


def _dialogue(value: object, key: str) -> list[Message]:
    if isinstance(value, list):
        return _messages(value)
    pieces = DIALOGUE_TURN.split(_text({key: value}, key))
    if pieces[0].strip() or len(pieces) < 3:
        raise DataError(f"{key} is no Human/Assistant dialogue, and there is no prompt")
    speakers, texts = pieces[1::2], pieces[2::2]
    return [
        {"role": "user" if speaker == "Human" else "assistant", "content": text.strip()}
        for speaker, text in zip(speakers, texts, strict=True)
    ]
