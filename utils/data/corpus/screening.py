"""Cuts protected items out of the training documents of a corpus, unit by unit.

What an item is, and what is cut, is said in `utils.data.corpus.decontamination`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from utils.data.corpus.cleaned_unit import CleanedUnit
from utils.data.corpus.corpus import Corpus, Fate
from utils.data.corpus.decontamination import Findings, ItemSet, Match, Protected, screen
from utils.data.corpus.rejected import LossRecorder
from utils.data.work.cache import ResultCache, array_digest
from utils.data.work.workers import AnyWorkers
from utils.files import fingerprint
from utils.log import progress

SCREENING = 1
"""Raised when the same documents give another result."""

Task = tuple[CleanedUnit, np.ndarray, str, str]
"""Unit, its documents to be screened, stored hashes, name of the result."""


@dataclass(frozen=True)
class Screener:
    """Finds protected texts in a corpus, in worker processes."""

    store: ResultCache
    workers: AnyWorkers
    losses: Mapping[int, LossRecorder]
    """A recorder for each source (its number)."""

    def decontaminate(
        self, corpus: Corpus, sets: Sequence[ItemSet], earlier: Mapping[str, Any] | None = None
    ) -> Findings:
        """Cut protected items out of the new training documents of `corpus`.

        The validation documents are a set of their own; a document of which nothing is left gets
        its fate. Settled training documents stay as they are: a new validation document that one
        of them holds is left out instead. `earlier` is the state of the findings of the round
        before.
        """
        if corpus.num_settled:
            self._drop_known_validation(corpus)
        own = ItemSet("validation split", "this data set", list(corpus.texts(Fate.VALIDATION)))
        report = Findings([*sets, own])
        if earlier is not None:
            report.go_on(earlier)
        hashes = self._stored_hashes([text for one in [*sets, own] for text in one.texts])
        corpus.results.add(hashes)
        total = sum(int(np.count_nonzero(fates == Fate.TRAIN)) for _, fates in corpus.new_parts())
        with progress("decontaminating", total, "documents") as task:
            results = self.workers.map(screen_unit, _tasks(corpus.new_parts(), hashes))
            parts = enumerate(corpus.new_parts(), start=corpus.first_new_unit)
            for name, (at, (unit, fates)) in zip(results, parts, strict=True):
                corpus.results.add(name)
                found = self.store.record(name)
                task.advance(int(np.count_nonzero(fates == Fate.TRAIN)))
                for number, document in found["documents"].items():
                    if _account(unit, int(number), document, report, self.losses[unit.origin]):
                        fates[int(number)] = Fate.CONTAMINATED
                if found["texts_left"]:
                    corpus.units[at] = replace(unit, cuts=name)
        return report

    def _stored_hashes(self, texts: Sequence[str]) -> str:
        protected = Protected.of(texts)
        name = f"protected-{protected.digest()}"
        if not self.store.has(name):
            protected.save(self.store, name)
        return name

    def _drop_known_validation(self, corpus: Corpus) -> None:
        """Give the new validation documents their fate that settled training documents hold."""
        places = [
            (unit, fates, number)
            for unit, fates in corpus.new_parts()
            for number in np.flatnonzero(fates == Fate.VALIDATION).tolist()
        ]
        texts = [unit.row(number)["text"] for unit, _, number in places]
        hashes = self._stored_hashes(texts)
        settled = corpus.parts(last=corpus.first_new_unit)
        held: set[int] = set()
        for found in self.workers.map(items_held, _tasks(settled, hashes)):
            held.update(found)
        for item in sorted(held):
            unit, fates, number = places[item]
            fates[number] = Fate.CONTAMINATED
            self.losses[unit.origin].count("contaminated", 1, len(texts[item]))
            detail = "for validation, but training documents of an earlier round hold it"
            self.losses[unit.origin].sample(
                "in_validation", {"id": unit.row(number)["id"], "detail": detail}
            )


def _tasks(parts: Iterator[tuple[CleanedUnit, np.ndarray]], hashes: str) -> Iterator[Task]:
    for unit, fates in parts:
        numbers = np.flatnonzero(fates == Fate.TRAIN)
        content = [SCREENING, unit.name, unit.cuts, array_digest(numbers), hashes]
        yield unit, numbers, hashes, f"cuts-{fingerprint(content)}"


def screen_unit(task: Task) -> str:
    """Screen documents of a unit, unless that was done, and return the name of the result.

    A pure function (for a worker process).
    """
    unit, numbers, hashes, name = task
    if unit.store.has(name):
        return name
    protected = _protected(unit.store.folder, hashes)
    documents: dict[int, dict[str, Any]] = {}
    texts_left: dict[int, str] = {}
    texts = list(unit.texts(numbers.tolist()))
    for number, text, found in zip(numbers.tolist(), texts, screen(texts, protected), strict=True):
        if found is not None:
            documents[number] = {
                "cut": [asdict(match) for match in found.cut],
                "marked": [asdict(match) for match in found.marked],
                "characters": [len(text), len(found.text)],
                "is_empty": not found.text.strip(),
            }
            if found.cut and found.text.strip():
                texts_left[number] = found.text
    unit.store.put(name, {}, {"documents": documents, "texts_left": texts_left})
    return name


def items_held(task: Task) -> list[int]:
    """Return the items that documents of a unit hold. A pure function (for a worker process)."""
    unit, numbers, hashes, _ = task
    protected = _protected(unit.store.folder, hashes)
    texts = list(unit.texts(numbers.tolist()))
    held = {item for _, grams in protected.touched(texts) for item in protected.held(grams)}
    return sorted(held)


@lru_cache(maxsize=1)
def _protected(folder: Path, hashes: str) -> Protected:
    return Protected.load(ResultCache(folder), hashes)


def _account(
    unit: CleanedUnit, number: int, document: dict[str, Any], report: Findings, losses: LossRecorder
) -> bool:
    """Count what was found in a document; return whether nothing is left of it."""
    name = unit.row(number)["id"]
    for record in report.records(name, [Match(**match) for match in document["marked"]]):
        losses.sample("overlapping", record)
    cut = [Match(**match) for match in document["cut"]]
    if not cut:
        return False
    before, after = document["characters"]
    is_empty = document["is_empty"]
    losses.count("contaminated", int(is_empty), before if is_empty else before - after)
    for match, record in zip(cut, report.records(name, cut), strict=True):
        is_own = report.is_of_last_set(match)
        losses.sample("in_validation" if is_own else "contaminated", record)
    return is_empty
