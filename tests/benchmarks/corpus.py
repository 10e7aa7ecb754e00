"""A corpus with known repetitions, made of local text, and the plain answer to which they are.

Documents are random runs of paragraphs; some are repeated exactly, others with words replaced until
their Jaccard similarity to the original is just at a wanted level. What should be dropped is found
by an exact join of all sets of word 5-grams (prefix filtering: Bayardo, Ma and Srikant, Scaling Up
All Pairs Similarity Search, 2007), which shares no code with what it judges.
"""

import json
import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

LEVELS = (0.5, 0.7, 0.78, 0.8, 0.82, 0.9, 0.95)
"""Jaccard similarities of the injected near-duplicates, at least."""
EXACT_SHARE = NEAR_SHARE = 0.05
DOCUMENT_CHARACTERS = (800, 5000)
REPLACED_SHARE = 0.4
WORD = re.compile(r"\w+")
WORDS = [f"w{number}" for number in range(400)]
"""Vocabulary of made-up texts."""


@dataclass(frozen=True)
class Built:
    """A corpus file and what was put into it."""

    path: Path
    documents: int
    bytes: int
    exact: int
    near: dict[float, int]
    """Injected near-duplicates by level."""


def build_corpus(
    texts: Iterable[str], path: Path, megabytes: float, seed: int, levels: Sequence[float] = LEVELS
) -> Built:
    """Write about `megabytes` of JSON lines {"id", "text"} made of paragraphs of `texts`."""
    chance = random.Random(seed)
    paragraphs = [part for text in texts for part in text.split("\n\n") if len(part) > 40]
    assert len(paragraphs) > 100, "too little text to make a corpus of"
    words = WORD.findall(" ".join(paragraphs))  # as often as they are used
    near: Counter[float] = Counter()
    kept: list[str] = []
    exact = number = size = 0
    with path.open("wb") as file:
        while size < megabytes * 1e6:
            draw = chance.random()
            if kept and draw < EXACT_SHARE:
                text = chance.choice(kept)
                exact += 1
            elif kept and draw < EXACT_SHARE + NEAR_SHARE:
                level = chance.choice(levels)
                text = near_copy(chance.choice(kept), level, chance)
                near[level] += 1
            else:
                text = _document(paragraphs, words, chance)
                kept = [*kept[-2000:], text] if len(kept) > 4000 else kept
                kept.append(text)
            line = json.dumps({"id": f"{number:08d}", "text": text}, ensure_ascii=False)
            size += file.write(line.encode("utf-8", "replace") + b"\n")
            number += 1
    return Built(path, number, size, exact, dict(sorted(near.items())))


def _document(paragraphs: list[str], words: list[str], chance: random.Random) -> str:
    """Return paragraphs with some words replaced, so that none is in two documents as it is."""
    wanted = chance.randint(*DOCUMENT_CHARACTERS)
    parts: list[str] = []
    length = 0
    while length < wanted:
        parts.append(chance.choice(paragraphs)[:wanted])
        length += len(parts[-1])
    text = "\n\n".join(parts)
    return WORD.sub(
        lambda word: chance.choice(words) if chance.random() < REPLACED_SHARE else word[0], text
    )


def near_copy(text: str, level: float, chance: random.Random) -> str:
    """Return the text with as many words replaced as leave a similarity of at least `level`."""
    places = [match.span() for match in WORD.finditer(text)]
    chance.shuffle(places)
    own = gram_set(text)
    least, most = 0, len(places)
    while least < most:
        middle = (least + most + 1) // 2
        if similarity(own, gram_set(_replaced(text, places[:middle]))) >= level:
            least = middle
        else:
            most = middle - 1
    return _replaced(text, places[:least])


def _replaced(text: str, places: list[tuple[int, int]]) -> str:
    out, at = [], 0
    for number, (start, end) in enumerate(sorted(places)):
        out += [text[at:start], f"other{start}x{number % 7}"]
        at = end
    return "".join([*out, text[at:]])


def edited(text: str, edits: int, chance: random.Random) -> str:
    """Return the text with some words replaced."""
    words = text.split()
    for _ in range(edits):
        words[chance.randrange(len(words))] = chance.choice(WORDS)
    return " ".join(words)


def gram_set(text: str) -> set[int]:
    """Return the hashes of the distinct word 5-grams; fewer than five words make one gram."""
    words = WORD.findall(text.lower())
    if not words:
        return set()
    words += [""] * (5 - len(words))
    return {hash(gram) for gram in zip(*(words[at:] for at in range(5)), strict=False)}


def similarity(first: set[int], second: set[int]) -> float:
    """Return the Jaccard similarity of two sets."""
    union = len(first | second)
    return len(first & second) / union if union else 0.0


def similar_pairs(sets: Sequence[set[int]], threshold: float) -> Iterator[tuple[int, int]]:
    """Yield (later, earlier) for all pairs whose similarity reaches the threshold, exactly.

    A pair can reach it only where the first grams of both, rarest first, have one in common.
    """
    counts = Counter(gram for own in sets for gram in own)
    index: dict[int, list[int]] = {}
    for number, own in enumerate(sets):
        if not own:
            continue
        ordered = sorted(own, key=lambda gram: (counts[gram], gram))
        prefix = ordered[: len(own) - math.ceil(threshold * len(own) - 1e-9) + 1]
        for other in {found for gram in prefix for found in index.get(gram, ())}:
            if similarity(own, sets[other]) >= threshold:
                yield number, other
        for gram in prefix:
            if counts[gram] > 1:
                index.setdefault(gram, []).append(number)


def repetitions(texts: Sequence[str], threshold: float) -> set[int]:
    """Return the numbers of the documents that repeat an earlier one, directly or by others."""
    parents = list(range(len(texts)))

    def root(number: int) -> int:
        while parents[number] != number:
            number = parents[number]
        return number

    def join(first: int, second: int) -> None:
        low, high = sorted((root(first), root(second)))
        parents[high] = low

    first_of: dict[str, int] = {}
    for number, text in enumerate(texts):
        join(number, first_of.setdefault(" ".join(text.split()), number))
    alone = [number for number in range(len(texts)) if root(number) == number]
    for one, other in similar_pairs([gram_set(texts[number]) for number in alone], threshold):
        join(alone[one], alone[other])
    return {number for number in range(len(texts)) if root(number) != number}
