"""Holds the same few sentences in five languages: how many tokens a tokenizer needs for each."""

import json
from functools import cache
from pathlib import Path

from utils.tokenizers.tokenizer import Tokenizer

SAMPLES = Path(__file__).with_name("language_samples.json")


@cache
def language_samples() -> dict[str, str]:
    """Return language -> text: articles 1 to 5 of the Universal Declaration of Human Rights."""
    texts = json.loads(SAMPLES.read_text(encoding="utf-8"))["texts"]
    return {language: "\n".join(lines) for language, lines in texts.items()}


def bytes_per_token(tokenizer: Tokenizer) -> dict[str, float]:
    """Return language -> UTF-8 bytes of its sample per token."""
    return {
        language: round(len(text.encode()) / len(tokenizer.encode(text)), 4)
        for language, text in language_samples().items()
    }
