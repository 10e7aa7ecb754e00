"""Near-duplicates by datasketch alone: slow, in memory, and plain to read.

`--dedup_engine datasketch` checks with it what `utils.data.dedup.minhash` decides fast: own 5-grams
(tuples of words from a regular expression), own signatures, own index; only the definition is the
same.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

from utils.data.dedup.minhash import NUM_PERMUTATIONS, Families, banding
from utils.data.dedup.shingling import NGRAM, SOLO_SCRIPTS

WORDS = re.compile(rf"[{SOLO_SCRIPTS}]|[^\W{SOLO_SCRIPTS}]+")

Grams = frozenset[tuple[str, ...]]


def near_duplicates_by_datasketch(
    texts: Iterable[tuple[int, str]],
    count: int,
    threshold: float,
    watch: Callable[[], object] = lambda: None,
) -> Families:
    """Return the families of near-duplicates.

    `texts`: (number, text) of the documents that take part, of `count` in all; `watch()` is called
    before each.
    """
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(num_perm=NUM_PERMUTATIONS, params=banding(threshold))
    families = Families(count)
    grams: dict[int, Grams] = {}
    for number, text in texts:
        watch()
        own = word_grams(text)
        if not own:
            continue
        sketch: Any = MinHash(num_perm=NUM_PERMUTATIONS, seed=1)
        sketch.update_batch(["\x00".join(gram).encode("utf-8", "replace") for gram in own])
        others: list[Any] = index.query(sketch)
        for other in sorted(others):
            common = len(own & grams[other])
            if common >= threshold * (len(own) + len(grams[other]) - common):
                families.join(number, other)
        index.insert(number, sketch)
        grams[number] = own
    return families


def word_grams(text: str) -> Grams:
    """Return the distinct word 5-grams; fewer than five words make one gram."""
    words = ["".join(letter.lower()[0] for letter in word) for word in WORDS.findall(text)]
    if not words:
        return frozenset()
    words += [""] * (NGRAM - len(words))
    return frozenset(tuple(words[at : at + NGRAM]) for at in range(len(words) - NGRAM + 1))
