"""Keep what a model is measured on out of what it is trained on.

An item is a text that must not be trained on (a passage of a benchmark, a validation document) and
stands for the hashes of its word 13-grams. Where a training document holds at least 80 % of an
item's 13-grams, its paragraphs with any of them are cut out; others that share some with any item
are marked and stay. Knows no benchmark: items arrive as texts or as a file of hashes.

References: 13-grams after Brown et al., Language Models are Few-Shot Learners (2020), appendix C.
A document with at least 80 % of an item's grams holds one of any 20 % of them and one, so
candidates are looked for by the rarest only (prefix filtering: Bayardo, Ma and Srikant, 2007).

Legend: I items, G grams of all items.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Any

import numpy as np

from utils.data.dedup.shingling import batches_by_script, gram_hashes
from utils.data.work.cache import ResultCache, array_digest

NGRAM = 13
BLANK_LINES = re.compile(r"(\n{2,})")
CUT_SHARE = 0.8
MARK_BITS = 25
LONG_LINE = 200
"""Characters of a line from which line ends, not blank lines, separate the paragraphs around it."""
MATCH_CHARACTERS = 500
"""Beginning of a paragraph that is reported."""


@dataclass(frozen=True)
class ItemSet:
    """Items of one kind, such as a benchmark."""

    name: str
    origin: str
    """File or hub name they came from."""
    texts: Sequence[str]


@dataclass(frozen=True)
class Match:
    """A paragraph that shares 13-grams with protected items."""

    paragraph: int
    """Its number in its document, from 0."""
    text: str
    """Its beginning."""
    item: int | None
    """Item of which its document holds at least CUT_SHARE; None: the paragraph stays."""
    share: float
    """Share of that item's 13-grams in the document (of the paragraph's own, where it stays)."""


class Protected:
    """Hashes of items, to look paragraphs up in."""

    def __init__(self, grams: np.ndarray, offsets: np.ndarray) -> None:
        """Take the distinct grams of each item in turn, uint64 [G], and int64 offsets [I + 1]."""
        self.grams, self.offsets = grams, offsets
        self._known, counts = np.unique(grams, return_counts=True)
        self._mask = np.uint64((1 << min(4 + len(self._known).bit_length(), MARK_BITS)) - 1)
        self._marks = np.zeros(int(self._mask) + 1, bool)
        """Most grams that no item has are sorted out by their last bits."""
        self._marks[self._known & self._mask] = True
        rarity = counts[np.searchsorted(self._known, grams)]
        keys, owners = [], []
        for item, (start, end) in enumerate(pairwise(offsets)):
            own = end - start - math.ceil(CUT_SHARE * (end - start) - 1e-9) + 1
            rarest = np.argsort(rarity[start:end], kind="stable")[:own] + start
            keys.append(grams[rarest])
            owners.append(np.full(len(rarest), item))
        order = np.argsort(np.concatenate([np.empty(0, np.uint64), *keys]), kind="stable")
        self._keys = np.concatenate([np.empty(0, np.uint64), *keys])[order]
        self._owners = np.concatenate([np.empty(0, np.int64), *owners])[order]

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Protected":
        """Hash items; one of fewer than 13 words has no gram and matches nothing."""
        grams, starts = gram_hashes(texts, NGRAM, pad=False)
        own = [np.unique(grams[a:b]) for a, b in pairwise(starts)]
        offsets = np.cumsum([0, *map(len, own)], dtype=np.int64)
        return cls(np.concatenate([np.empty(0, np.uint64), *own]), offsets)

    def digest(self) -> str:
        """Return a hash of the hashes."""
        return array_digest(self.grams, self.offsets)

    def save(self, store: ResultCache, name: str) -> None:
        """Put the hashes into a store."""
        store.put(name, {"grams": self.grams, "offsets": self.offsets}, None)

    @classmethod
    def load(cls, store: ResultCache, name: str) -> "Protected":
        """Read what `save` has written."""
        arrays = store.arrays(name)
        return cls(arrays["grams"], arrays["offsets"])

    def touched(self, texts: Sequence[str]) -> list[tuple[int, np.ndarray]]:
        """Return number and distinct grams of each text that shares any with any item."""
        found = []
        for batch in batches_by_script(texts):
            grams, starts = gram_hashes([texts[number] for number in batch], NGRAM, pad=False)
            likely = np.flatnonzero(self._marks[grams & self._mask])
            hits = likely[_contains(self._known, grams[likely])]
            places = np.unique(np.searchsorted(starts, hits, "right") - 1).tolist()
            found += [(batch[n], np.unique(grams[starts[n] : starts[n + 1]])) for n in places]
        return sorted(found, key=itemgetter(0))

    def held(self, grams: np.ndarray) -> dict[int, float]:
        """Return {item: share of its grams} of the items that `grams` hold CUT_SHARE of."""
        left = np.searchsorted(self._keys, grams, "left")
        right = np.searchsorted(self._keys, grams, "right")
        hits = [self._owners[a:b] for a, b in zip(left, right, strict=True) if a < b]
        candidates = np.unique(np.concatenate(hits)).tolist() if hits else []
        shares = {item: float(_contains(grams, self.of_item(item)).mean()) for item in candidates}
        return {item: share for item, share in shares.items() if share >= CUT_SHARE}

    def share_known(self, grams: np.ndarray) -> float:
        """Return the share of `grams` that any item has."""
        return float(_contains(self._known, grams).mean())

    def of_item(self, item: int) -> np.ndarray:
        """Return the distinct grams of an item."""
        return self.grams[self.offsets[item] : self.offsets[item + 1]]


def _contains(values: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return which of `asked` are in the sorted `values` (bool)."""
    if not len(values):
        return np.zeros(len(asked), bool)
    places = np.minimum(np.searchsorted(values, asked), len(values) - 1)
    return values[places] == asked


@dataclass(frozen=True)
class Screened:
    """A document that shares 13-grams with protected items."""

    text: str
    """Text that is left of it."""
    cut: list[Match]
    """Paragraphs that were cut out."""
    marked: list[Match]
    """Paragraphs that stay although they share some."""


def screen(texts: Sequence[str], protected: Protected) -> list[Screened | None]:
    """Return for each document what is left of it, None where it shares nothing."""
    result: list[Screened | None] = [None] * len(texts)
    for number, grams in protected.touched(texts):
        result[number] = _screen(texts[number], protected.held(grams), protected)
    return result


def _screen(text: str, held: dict[int, float], protected: Protected) -> Screened:
    parts = paragraphs(text)
    cut: list[Match] = []
    marked: list[Match] = []
    for number, grams in protected.touched([part for part, _ in parts]):
        begin = parts[number][0][:MATCH_CHARACTERS]
        shared = [item for item in held if _contains(grams, protected.of_item(item)).any()]
        if shared:
            item = max(shared, key=lambda item: held[item])
            cut.append(Match(number, begin, item, held[item]))
        else:
            marked.append(Match(number, begin, None, protected.share_known(grams)))
    out = {match.paragraph for match in cut}
    left = "".join(part + border for n, (part, border) in enumerate(parts) if n not in out)
    return Screened(left.rstrip("\n") if out else text, cut, marked)


def paragraphs(text: str) -> list[tuple[str, str]]:
    """Return the paragraphs of a text, each with the line ends that follow it.

    Blank lines separate paragraphs, and so does each line end of a stretch with long lines, where
    no line is wrapped.
    """
    parts: list[tuple[str, str]] = []
    pieces = BLANK_LINES.split(text.rstrip("\n"))
    borders = [*pieces[1::2], text[len(text.rstrip("\n")) :]]
    for stretch, border in zip(pieces[::2], borders, strict=True):
        lines = stretch.split("\n")
        if len(max(lines, key=len)) < LONG_LINE:
            parts.append((stretch, border))
        else:
            parts += [(line, "\n") for line in lines[:-1]] + [(lines[-1], border)]
    return parts


class Findings:
    """Findings of each set, for the cards."""

    def __init__(self, sets: Sequence[ItemSet]) -> None:
        self._sets = sets
        self._ends = np.cumsum([len(one.texts) for one in sets])
        self._found: list[set[int]] = [set() for _ in sets]
        self._cut = [0] * len(sets)
        self._marked = 0

    def records(self, name: str, matches: Iterable[Match]) -> list[dict[str, str | int]]:
        """Count the matches of one document and return a line about each."""
        return [self._record(name, match) for match in matches]

    def _record(self, name: str, match: Match) -> dict[str, str | int]:
        record: dict[str, str | int] = {
            "id": name,
            "paragraph": match.paragraph + 1,
            "text": match.text,
        }
        if match.item is None:
            self._marked += 1
            return record | {"detail": f"{match.share:.0%} of its 13-grams are in protected texts"}
        at = int(np.searchsorted(self._ends, match.item, "right"))
        own = match.item - int(self._ends[at]) + len(self._sets[at].texts)
        self._found[at].add(own)
        self._cut[at] += 1
        where = f"item {own + 1} of {self._sets[at].name}"
        return record | {"detail": f"{match.share:.0%} of the 13-grams of {where}"}

    def is_of_last_set(self, match: Match) -> bool:
        """Return whether the item of a match is one of the last set."""
        return match.item is not None and match.item >= self._ends[-1] - len(self._sets[-1].texts)

    def state(self) -> dict[str, Any]:
        """Return the findings for `go_on`."""
        return {
            "found": [sorted(one) for one in self._found],
            "cut": self._cut,
            "marked": self._marked,
        }

    def go_on(self, state: Mapping[str, Any]) -> None:
        """Count on from an earlier round's findings in the same sets; the last may be longer."""
        self._found = [set(one) for one in state["found"]]
        self._cut = list(state["cut"])
        self._marked = state["marked"]

    def as_dict(self) -> dict[str, Any]:
        """Return the findings for stats.json."""
        sets = [
            {
                "name": one.name,
                "origin": one.origin,
                "items": len(one.texts),
                "items_found": len(self._found[at]),
                "paragraphs_cut": self._cut[at],
            }
            for at, one in enumerate(self._sets)
        ]
        return {"sets": sets, "paragraphs_marked": self._marked}
