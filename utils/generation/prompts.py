"""Prompts that fit: conversations and raw text to ids that leave room for the answer."""

from bisect import bisect_left
from collections.abc import Sequence

from utils.chat.templates import Message
from utils.errors import DataError
from utils.model.checkpoints import LoadedModel


def text_prompt(loaded: LoadedModel, text: str) -> list[int]:
    """Return the ids of a text to be continued.

    The separator stands in front, as in front of every document in training.
    """
    return [loaded.prefix_id, *loaded.encoder.encode(text)]


def chat_prompt(
    loaded: LoadedModel, messages: Sequence[Message], max_new_tokens: int
) -> tuple[list[int], int]:
    """Return (ids, number of messages left out) of a conversation in the model's template.

    When it is too long for the context, the oldest turns are left out, never a system message at
    its beginning and never the last message.

    Raises:
        DataError: it is no conversation, or what must stay is too long.
    """
    room = loaded.context_length - max_new_tokens
    ids = loaded.template.encode_prompt(messages, loaded.encoder)
    if len(ids) <= room:
        return ids, 0
    is_system = [message["role"] == "system" for message in messages]
    head = is_system.index(False) if False in is_system else len(messages)

    def shortened(start: int) -> list[int]:
        kept = [*messages[:head], *messages[start:]]
        return loaded.template.encode_prompt(kept, loaded.encoder)

    later = range(head + 1, len(messages))
    starts = [place for place in later if messages[place]["role"] == "user"]
    place = bisect_left(starts, True, key=lambda start: len(shortened(start)) <= room)
    if not starts or place == len(starts):
        shortest = shortened(starts[-1]) if starts else ids
        check_room(loaded, len(shortest), max_new_tokens)
    return shortened(starts[place]), starts[place] - head


def check_room(loaded: LoadedModel, prompt_tokens: int, max_new_tokens: int) -> None:
    """Check that a prompt and its answer fit into the context.

    Raises:
        DataError: they do not; the message has the three numbers.
    """
    left = loaded.context_length - prompt_tokens
    if not prompt_tokens:
        raise DataError("the prompt is empty: give at least one token")
    if left < max_new_tokens:
        remedy = f"shorten it, or lower max_new_tokens to {left}" if left > 0 else "shorten it"
        raise DataError(
            f"a prompt of {prompt_tokens} tokens and {max_new_tokens} new ones exceed the "
            f"context of {loaded.context_length}: {remedy}"
        )
