"""Proofs about text and ids: nothing is lost, every library agrees, the shards hold the text."""

from collections.abc import Callable, Sequence

from utils.preflight.result import CheckResult
from utils.tokenizers.tokenizer import Tokenizer

SHOWN = 40
"""Characters of a text that a message shows."""


def round_trip(texts: Sequence[str], tokenizer: Tokenizer) -> CheckResult:
    """Prove that decode(encode(x)) == x on real lines."""
    lost = [text for text in texts if tokenizer.decode(tokenizer.encode(text)) != text]
    return _result(
        "tokenizer round trip",
        lost,
        len(texts),
        "the tokenizer loses characters; prepare the data again with a new tokenizer",
    )


def tokenizers_agree(
    texts: Sequence[str], tokenizer: Tokenizer, encode: Callable[[str], list[int]]
) -> CheckResult:
    """Prove that `encode` (transformers) gives the ids of the frozen tokenizer."""
    other = [text for text in texts if encode(text) != tokenizer.encode(text)]
    return _result(
        "transformers and the frozen tokenizer give the same ids",
        other,
        len(texts),
        "the files in the tokenizer folder are of two tokenizers; prepare the data again",
    )


def shards_hold_text(
    documents: Sequence[tuple[str, Sequence[int]]], tokenizer: Tokenizer
) -> CheckResult:
    """Prove that token shards decode to the documents beside them, each closed by EOS.

    `documents` are (text of the .jsonl, ids of the .bin between two offsets).
    """
    wrong = [text for text, ids in documents if not _holds(list(ids), text, tokenizer)]
    return _result(
        "token shards decode to the text shards",
        wrong,
        len(documents),
        "shards and tokenizer are not of one run; prepare the data again",
    )


def _holds(ids: list[int], text: str, tokenizer: Tokenizer) -> bool:
    """Return whether `ids` are `text` and its end; an id that is no piece cannot be decoded."""
    if not ids or ids[-1] != tokenizer.eos_id or max(ids) >= tokenizer.vocab_size:
        return False
    return tokenizer.decode(ids[:-1]) == text


def vocabulary_fits(highest_id: int, pieces: int, rows: int) -> CheckResult:
    """Prove that each id is a piece of the tokenizer, and each piece has a row of the embedding."""
    return CheckResult(
        "every token id has an embedding",
        f"highest id {highest_id}, {pieces} pieces, {rows} rows",
        "highest id < pieces <= rows",
        highest_id < pieces <= rows,
        f"pass --vocab_size {pieces}",
    )


def _result(name: str, wrong: Sequence[str], total: int, remedy: str) -> CheckResult:
    example = f", such as {wrong[0][:SHOWN]!r}" if wrong else ""
    measured = f"{len(wrong)} of {total} texts differ{example}"
    return CheckResult(name, measured, "none of at least 1", not wrong and total > 0, remedy)
