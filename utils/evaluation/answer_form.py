"""The 0-1 response quality score of a smoke answer: form only, never truth.

An empty answer scores 0; else the score is the weighted mean of the parts that apply (see PARTS).
Fluent nonsense can score high. The score is there to notice answers that are empty, endless, in the
wrong language, or turn in circles.
"""

import re
import string
from collections.abc import Sequence
from typing import Literal

from pydantic import PositiveInt

from utils.chat.templates import Message
from utils.config.base import Section

PARTS = {
    "ends": (0.25, "ends by itself within max_new_tokens (chat checkpoints only)"),
    "no_loops": (0.30, "distinct 3-grams of words: 0 at a share of 0.3 or less, 1 from 0.9"),
    "length": (0.15, "at least min_words words; shorter ones in proportion"),
    "form": (0.15, "the form or language hint of the prompt, where it has one"),
    "keywords": (0.15, "one of the expected words is in it, where the prompt has some"),
}
"""Part -> (weight, what gives the full mark)."""
LONG_WORD = 20
"""Characters a word (its blank included) from which on text counts as having no words."""
LEAST_DISTINCT, ENOUGH_DISTINCT = 0.3, 0.9


class SmokePrompt(Section):
    """One prompt with the hints that its score uses."""

    category: str
    prompt: str
    """What a user asks; a chat checkpoint gets it through its template."""
    opening: str = ""
    """Text that a base checkpoint continues; the prompt itself when empty."""
    history: tuple[Message, ...] = ()
    """Earlier messages of the conversation."""
    keywords: tuple[str, ...] = ()
    """Any one of them is expected in the answer (case does not matter)."""
    form: Literal["", "list", "one_line", "question", "capital"] = ""
    """The form expected of a chat answer."""
    language_words: tuple[str, ...] = ()
    """Any one of these words tells that the answer is in the language asked for."""
    min_words: PositiveInt = 3
    """Shortest answer that gets the full mark for length."""


def quality(prompt: SmokePrompt, text: str, ended: bool | None) -> dict[str, float]:
    """Return the parts of the score that apply, and "score" (0-1).

    `ended` is None where no end is expected (a base checkpoint only continues a text).
    """
    words = text.split()
    if not words:
        return {"score": 0.0}
    parts = {"no_loops": distinctness(text), "length": min(1.0, len(words) / prompt.min_words)}
    if ended is not None:
        parts["ends"] = float(ended)
    if (hint := _hint(prompt, text, is_chat=ended is not None)) is not None:
        parts["form"] = float(hint)
    if prompt.keywords:
        parts["keywords"] = float(_has_any(text, prompt.keywords))
    weight = sum(PARTS[name][0] for name in parts)
    score = sum(PARTS[name][0] * value for name, value in parts.items()) / weight
    return {**parts, "score": score}


def distinctness(text: str) -> float:
    """Return 0 for text that repeats itself and 1 for text that does not (see PARTS).

    Where words are few or very long (scripts without blanks, `aaaaaa`) characters are counted.
    """
    units: Sequence[str] = text.lower().split()
    if len(units) < 4 or len(text) > LONG_WORD * len(units):
        units = text.lower()
    grams = [tuple(units[i : i + 3]) for i in range(len(units) - 2)]
    if not grams:
        return 1.0
    share = len(set(grams)) / len(grams)
    return min(1.0, max(0.0, (share - LEAST_DISTINCT) / (ENOUGH_DISTINCT - LEAST_DISTINCT)))


def _hint(prompt: SmokePrompt, text: str, *, is_chat: bool) -> bool | None:
    """Return whether the form or language hint is met; None where the prompt has none."""
    if prompt.language_words:
        return _has_any(text, prompt.language_words)
    if not (prompt.form and is_chat):
        return None
    body = text.strip()
    checks = {
        "list": len(re.findall(r"(?m)^\s*(?:[-*]|\d+[.)])\s+\S", body)) >= 2
        or body.count(",") >= 2,
        "one_line": "\n" not in body,
        "question": body.endswith("?"),
        "capital": body[0].isupper(),
    }
    return checks[prompt.form]


def _has_any(text: str, wanted: Sequence[str]) -> bool:
    """Return whether one of the words (or phrases) stands in the text as a whole."""
    edges = string.punctuation + string.whitespace
    padded = " " + " ".join(word.strip(edges) for word in text.lower().split()) + " "
    return any(
        f" {word.lower()} " in padded or (not word.isascii() and word in text) for word in wanted
    )
