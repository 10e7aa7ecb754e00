"""Cuts protected items out of the training documents of a corpus, unit by unit.

What an item is, and what is cut, is said in `utils.data.decontamination`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from utils.data.cleaned import Cleaned
from utils.data.corpus import Corpus, Fate
from utils.data.decontamination import Findings, ItemSet, Match, Protected, screen
from utils.data.rejected import Rejected
from utils.data.store import Store, array_digest
from utils.data.workers import AnyWorkers
from utils.files import fingerprint
from utils.log import progress

SCREENING = 1
"""Raised when the same documents give another result."""

Task = tuple[Cleaned, np.ndarray, str, str]
"""Unit, its documents to be screened, stored hashes, name of the result."""


def decontaminate(
    corpus: Corpus, sets: Sequence[ItemSet], store: Store, workers: AnyWorkers, rejected: Rejected
) -> dict[str, Any]:
    """Cut protected items out of the training documents of `corpus`.

    The validation documents are a set of their own; a document of which nothing is left gets its
    fate. Returns what was found of each set.
    """
    own = ItemSet("validation split", "this data set", list(corpus.texts(Fate.VALIDATION)))
    every = [*sets, own]
    texts = [text for one in every for text in one.texts]
    protected = Protected.of(texts)
    hashes = f"protected-{protected.digest()}"
    if not store.has(hashes):
        protected.save(store, hashes)
    report = Findings(every)
    corpus.results.add(hashes)
    with progress("decontaminating", total=corpus.count(Fate.TRAIN)) as task:
        results = workers.map(screen_unit, _tasks(corpus, hashes))
        for at, (name, (unit, fates)) in enumerate(zip(results, corpus.parts(), strict=True)):
            corpus.results.add(name)
            found = store.record(name)
            task.advance(int(np.count_nonzero(fates == Fate.TRAIN)))
            for number, document in found["documents"].items():
                if _account(unit, int(number), document, report, rejected):
                    fates[int(number)] = Fate.CONTAMINATED
            if found["texts_left"]:
                corpus.units[at] = replace(unit, cuts=name)
    return report.as_dict()


def _tasks(corpus: Corpus, hashes: str) -> Iterator[Task]:
    for unit, fates in corpus.parts():
        numbers = np.flatnonzero(fates == Fate.TRAIN)
        name = f"cuts-{fingerprint([SCREENING, unit.name, array_digest(numbers), hashes])}"
        yield unit, numbers, hashes, name


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


@lru_cache(maxsize=1)
def _protected(folder: Path, hashes: str) -> Protected:
    return Protected.load(Store(folder), hashes)


def _account(
    unit: Cleaned, number: int, document: dict[str, Any], report: Findings, rejected: Rejected
) -> bool:
    """Count what was found in a document; return whether nothing is left of it."""
    name = unit.row(number)["id"]
    marked = [Match(**match) for match in document["marked"]]
    rejected.mark("overlapping", report.records(name, marked))
    if not document["cut"]:
        return False
    records = report.records(name, [Match(**match) for match in document["cut"]])
    before, after = document["characters"]
    if document["is_empty"]:
        rejected.drop("contaminated", before, records[0])
        return True
    rejected.cut("contaminated", before - after, records)
    return False
