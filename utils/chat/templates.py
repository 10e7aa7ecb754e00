"""Conversations to token ids: the one place that knows how a chat is laid out.

Training, evaluation and serving all build ids here, piece by piece, so that what the model saw in
training is what it sees when it answers, and user text can never become a control token. The same
layouts as Jinja text travel with a checkpoint for other programs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from utils.errors import DataError
from utils.tokenizers.control_tokens import EOS

Message = dict[str, str]
"""{"role": "system" | "user" | "assistant", "content": text}."""
ROLES = ("system", "user", "assistant")
END = EOS
"""Stands for the end-of-document token, whatever a tokenizer calls it."""


class Encoder(Protocol):
    """Tokenizer as templates need it; `TextEncoder` makes one of a transformers tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Return ids of plain text: no control ids, no BOS, no EOS."""
        ...

    def control_id(self, token: str) -> int:
        """Return the id of a control token such as `<|im_end|>`."""
        ...


@dataclass(frozen=True)
class TextEncoder:
    """A transformers tokenizer as an `Encoder`."""

    tokenizer: object

    def encode(self, text: str) -> list[int]:
        """Return ids of plain text; a literal `<|im_end|>` in it is split into ordinary pieces."""
        return self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)  # type: ignore[attr-defined]

    def control_id(self, token: str) -> int:
        """Return the id of a control token; that of the tokenizer's own EOS for `END`.

        Raises:
            DataError: the tokenizer does not have it.
        """
        if token == END:
            return self.tokenizer.eos_token_id  # type: ignore[attr-defined]
        token_id = self.tokenizer.convert_tokens_to_ids(token)  # type: ignore[attr-defined]
        if token_id is None or token_id == self.tokenizer.unk_token_id:  # type: ignore[attr-defined]
            raise DataError(
                f"the tokenizer has no {token}: use --prompt_template instruct (it needs none)"
            )
        return token_id


@dataclass(frozen=True)
class Segment:
    """A run of text, or one control token."""

    text: str
    is_control: bool = False
    is_answer: bool = False


@dataclass(frozen=True)
class Template:
    """One layout. A turn is opening + header + content + closing; `stop` closes an answer."""

    name: str
    stop: str
    """Control token that ends an answer, or END."""
    opening: str | None
    """Control token in front of every turn."""
    closing: str | None
    """Control token behind the turns of system and user."""
    headers: dict[str, str]
    """Plain text in front of the content, by role."""
    gaps: dict[str, str]
    """Plain text behind a turn, by role."""
    answer_prefix: str
    """Plain text at the start of an answer; it is part of what the model writes."""
    jinja: str
    """The same layout for `apply_chat_template`."""

    def encode_prompt(self, messages: Sequence[Message], encoder: Encoder) -> list[int]:
        """Return the ids up to the point where the assistant begins to write.

        Raises:
            DataError: no messages, an unknown role, or the last one is not from the user.
        """
        check_messages(messages)
        if messages[-1]["role"] == "assistant":
            raise DataError("the last message is the assistant's: end with a user message")
        segments = [*self._segments(messages), *self._head("assistant")]
        return [token_id for token_id, _ in _encode(segments, encoder)]

    def encode_conversation(
        self, messages: Sequence[Message], encoder: Encoder
    ) -> tuple[list[int], list[bool]]:
        """Return (ids, mask); the mask is True on every answer and its stop token."""
        check_messages(messages)
        pairs = _encode(self._segments(messages), encoder)
        return [token_id for token_id, _ in pairs], [is_answer for _, is_answer in pairs]

    def encode_answer(self, content: str, encoder: Encoder) -> list[int]:
        """Return the ids the model writes for `content`, the stop token included."""
        return [token_id for token_id, _ in _encode(self._answer(content), encoder)]

    def stop_id(self, encoder: Encoder) -> int:
        """Return the id that ends an answer."""
        return encoder.control_id(self.stop)

    def _segments(self, messages: Sequence[Message]) -> list[Segment]:
        segments: list[Segment] = []
        for message in messages:
            role, content = message["role"], message["content"]
            segments += self._head(role)
            if role == "assistant":
                segments += self._answer(content)
            else:
                segments.append(Segment(content))
                segments += [Segment(self.closing, is_control=True)] if self.closing else []
            segments.append(Segment(self.gaps[role]))
        return segments

    def _head(self, role: str) -> list[Segment]:
        opening = [Segment(self.opening, is_control=True)] if self.opening else []
        return [*opening, Segment(self.headers[role])]

    def _answer(self, content: str) -> list[Segment]:
        text = Segment(self.answer_prefix + content, is_answer=True)
        return [text, Segment(self.stop, is_control=True, is_answer=True)]


def _encode(segments: Sequence[Segment], encoder: Encoder) -> list[tuple[int, bool]]:
    """Return (id, belongs to an answer); text that touches is encoded as one piece of text."""
    pairs: list[tuple[int, bool]] = []
    for (is_control, is_answer), group in groupby(
        segments, key=lambda segment: (segment.is_control, segment.is_answer)
    ):
        texts = [segment.text for segment in group]
        if is_control:
            pairs += [(encoder.control_id(text), is_answer) for text in texts]
        else:
            pairs += [(token_id, is_answer) for token_id in encoder.encode("".join(texts))]
    return pairs


def check_messages(messages: Sequence[Message]) -> None:
    """Check that a conversation can be laid out.

    Raises:
        DataError: it is empty, a role is unknown, or a content is not text.
    """
    if not messages:
        raise DataError("a conversation without messages: give at least one user message")
    for number, message in enumerate(messages, 1):
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise DataError(f"message {number} has role {role!r}: use one of {', '.join(ROLES)}")
        if not isinstance(content, str):
            raise DataError(f"message {number} has no text: content is {type(content).__name__}")


CHATML = Template(
    name="chatml",
    stop="<|im_end|>",
    opening="<|im_start|>",
    closing="<|im_end|>",
    headers={role: f"{role}\n" for role in ROLES},
    gaps={role: "\n" for role in ROLES},
    answer_prefix="",
    jinja=(
        "{%- for m in messages -%}"
        "{{- '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' -}}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
    ),
)
INSTRUCT = Template(
    name="instruct",
    stop=END,
    opening=None,
    closing=None,
    headers={
        "system": "",
        "user": "### Instruction:\n",
        "assistant": "### Response:\n",
    },
    gaps={role: "\n\n" for role in ROLES},
    answer_prefix="",
    jinja=(
        "{%- for m in messages -%}"
        "{%- if m['role'] == 'assistant' -%}"
        "{{- '### Response:\n' + m['content'] + eos_token + '\n\n' -}}"
        "{%- elif m['role'] == 'user' -%}"
        "{{- '### Instruction:\n' + m['content'] + '\n\n' -}}"
        "{%- else -%}{{- m['content'] + '\n\n' -}}{%- endif -%}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '### Response:\n' -}}{%- endif -%}"
    ),
)
CHAT = Template(
    name="chat",
    stop=END,
    opening=None,
    closing=None,
    headers={"system": "", "user": "Human: ", "assistant": "Assistant:"},
    gaps={role: "\n\n" for role in ROLES},
    answer_prefix=" ",
    jinja=(
        "{%- for m in messages -%}"
        "{%- if m['role'] == 'assistant' -%}"
        "{{- 'Assistant: ' + m['content'] + eos_token + '\n\n' -}}"
        "{%- elif m['role'] == 'user' -%}"
        "{{- 'Human: ' + m['content'] + '\n\n' -}}"
        "{%- else -%}{{- m['content'] + '\n\n' -}}{%- endif -%}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}"
    ),
)
TEMPLATES = {template.name: template for template in (CHATML, INSTRUCT, CHAT)}
