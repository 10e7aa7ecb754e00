"""Conversation and preference files to token ids, with the loss on answers only.

Every row that is read is accounted for: rows = kept + dropped (by reason) + bad (by place).
Ids come from `utils.chat.templates` alone; labels of everything but answers and their stop token
are -100. Labels are not shifted here: the trainer does that, once.
Knows nothing about models.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from utils.chat.layouts import Preference, conversation, preference, question
from utils.chat.templates import Encoder, Message, Template
from utils.errors import DataError
from utils.reading.documents import BadLine
from utils.reading.rows import read_rows

IGNORE = -100
"""Label of a token that is not learned."""
Parsed = TypeVar("Parsed")


@dataclass(kw_only=True)
class _Rows:
    """Rows as ids, and how many are left out for which reason."""

    dropped: Counter[str] = field(default_factory=Counter)

    def first(self, count: int) -> Self:
        """Return the first `count` rows."""
        names = {entry.name for entry in fields(self)} - {"dropped"}
        return replace(self, **{name: getattr(self, name)[:count] for name in names})

    @property
    def reasons(self) -> str:
        """Reasons and counts of the rows left out, in words."""
        return ", ".join(f"{count} {reason}" for reason, count in self.dropped.items())


@dataclass
class SFTRows(_Rows):
    """Conversations as ids; entry N of each list belongs to the same row."""

    conversations: list[list[Message]] = field(default_factory=list)
    input_ids: list[list[int]] = field(default_factory=list)
    labels: list[list[int]] = field(default_factory=list)
    """The ids of answers and their stop tokens, IGNORE elsewhere."""

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def ids(self) -> list[list[int]]:
        """Tokens of each row."""
        return self.input_ids

    def as_json(self) -> Iterator[dict[str, Any]]:
        """Yield the rows in the layout {messages}."""
        yield from ({"messages": messages} for messages in self.conversations)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(ids) for ids in self.input_ids]


@dataclass
class DPORows(_Rows):
    """Preferences as ids; entry N of each list belongs to the same row."""

    preferences: list[Preference] = field(default_factory=list)
    prompt_ids: list[list[int]] = field(default_factory=list)
    chosen_ids: list[list[int]] = field(default_factory=list)
    """The better answer with its stop token."""
    rejected_ids: list[list[int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.prompt_ids)

    @property
    def ids(self) -> list[list[int]]:
        """Tokens of each prompt with the better answer."""
        rows = zip(self.prompt_ids, self.chosen_ids, strict=True)
        return [prompt + chosen for prompt, chosen in rows]

    def as_json(self) -> Iterator[dict[str, Any]]:
        """Yield the rows in the layout {prompt, chosen, rejected}."""
        yield from map(asdict, self.preferences)

    @property
    def lengths(self) -> list[int]:
        """Tokens of the longer one of each pair of dialogues."""
        rows = zip(self.prompt_ids, self.chosen_ids, self.rejected_ids, strict=True)
        return [len(prompt) + max(len(good), len(poor)) for prompt, good, poor in rows]

    def tokens(self, number: int) -> int:
        """Return the tokens of both dialogues of a row."""
        answers = len(self.chosen_ids[number]) + len(self.rejected_ids[number])
        return 2 * len(self.prompt_ids[number]) + answers


def read_conversations(path: Path) -> tuple[list[list[Message]], list[BadLine]]:
    """Return the conversations of a file (see `utils.reading.rows`), and the bad rows.

    Raises:
        DataError: the file is missing or holds no usable row.
    """
    return _read(path, conversation)


def read_preferences(path: Path) -> tuple[list[Preference], list[BadLine]]:
    """Return the preferences of a file (see `utils.reading.rows`), and the bad rows.

    Raises:
        DataError: the file is missing or holds no usable row.
    """
    return _read(path, preference)


def read_questions(path: Path) -> list[str]:
    """Return what is asked first in each conversation of a file that `read_conversations` reads.

    Raises:
        DataError: the file is missing or holds no question.
    """
    return _read(path, question)[0]


def build_sft_rows(
    conversations: Sequence[list[Message]],
    template: Template,
    encoder: Encoder,
    max_length: int,
    exclude: "SFTRows | None" = None,
) -> SFTRows:
    """Return the ids and labels of conversations of at most `max_length` tokens.

    Dropped and counted: `too_long`, and `in_heldout` (a row that `exclude` has too). What follows
    the last stop token is cut off: nothing is learned there.
    """
    rows = SFTRows()
    known = {tuple(ids) for ids in exclude.input_ids} if exclude else set()
    for messages in conversations:
        ids, mask = template.encode_conversation(messages, encoder)
        end = len(mask) - mask[::-1].index(True)
        ids, mask = ids[:end], mask[:end]
        if len(ids) > max_length:
            rows.dropped["too_long"] += 1
        elif tuple(ids) in known:
            rows.dropped["in_heldout"] += 1
        else:
            rows.conversations.append(messages)
            rows.input_ids.append(ids)
            rows.labels.append(
                [token_id if keep else IGNORE for token_id, keep in zip(ids, mask, strict=True)]
            )
    return rows


def build_dpo_rows(
    preferences: Sequence[Preference],
    template: Template,
    encoder: Encoder,
    max_length: int,
    exclude: "DPORows | None" = None,
) -> DPORows:
    """Return the ids of preferences whose longer dialogue has at most `max_length` tokens.

    Dropped and counted: `too_long`, `same_answers`, and `in_heldout` (a row `exclude` has too).
    """
    rows = DPORows()
    known = set(_pairs(exclude)) if exclude else set()
    for row in preferences:
        prompt = template.encode_prompt(row.prompt, encoder)
        chosen = template.encode_answer(row.chosen, encoder)
        rejected = template.encode_answer(row.rejected, encoder)
        if chosen == rejected:
            rows.dropped["same_answers"] += 1
        elif len(prompt) + max(len(chosen), len(rejected)) > max_length:
            rows.dropped["too_long"] += 1
        elif (tuple(prompt), tuple(chosen)) in known:
            rows.dropped["in_heldout"] += 1
        else:
            rows.preferences.append(row)
            rows.prompt_ids.append(prompt)
            rows.chosen_ids.append(chosen)
            rows.rejected_ids.append(rejected)
    return rows


def _pairs(rows: DPORows) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    for prompt, chosen in zip(rows.prompt_ids, rows.chosen_ids, strict=True):
        yield tuple(prompt), tuple(chosen)


def _read(path: Path, parse: Callable[[object], Parsed]) -> tuple[list[Parsed], list[BadLine]]:
    if not path.is_file():
        remedy = "run `make create-sample-datasets`, or pass another path"
        raise DataError(f"{path} not found: {remedy}")
    rows: list[Parsed] = []
    bad: list[BadLine] = []
    for row in read_rows(path):
        if isinstance(row, BadLine):
            bad.append(row)
            continue
        try:
            rows.append(parse(row.value))
        except DataError as error:
            bad.append(BadLine(row.file, row.line, str(error), row.num_bytes))
    if not rows:
        example = f", such as {bad[0].place}: {bad[0].reason}" if bad else ""
        raise DataError(f"{path} holds no usable row ({len(bad)} bad{example}): correct the file")
    return rows, bad
