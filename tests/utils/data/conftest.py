"""A corpus in a store, made of texts by the real cleaning, and texts that repeat each other."""

import random

import pytest

from tests.benchmarks.corpus import WORDS, edited
from utils.data.cleaning.batch import Rules
from utils.data.corpus.cleaned_unit import CleanedUnit, clean_unit
from utils.data.corpus.corpus import Corpus
from utils.data.corpus.work_units import WorkUnit
from utils.data.work.cache import ResultCache
from utils.reading.documents import Document


@pytest.fixture
def corpus_of(tmp_path):
    """Make a corpus of units of `size` texts each; `origins` numbers the source of each text."""

    def make(texts, threshold=0.8, size=50, origins=None):
        store = ResultCache(tmp_path / "store")
        rules = Rules(1, 10**9, None, "py3langid", 0.5, threshold)
        units = []
        for start in range(0, len(texts), size):
            origin = origins[start] if origins else 0
            batch = tuple(
                Document(f"doc-{start + at}", text, f"source-{origin}")
                for at, text in enumerate(texts[start : start + size])
            )
            name, source = f"clean-{start:06d}", f"source-{origin}"
            unit = WorkUnit(name, origin, source, "text", rules, (), batch)
            clean_unit((str(store.folder), unit))
            documents = store.record(unit.name)["documents"]
            units.append(CleanedUnit(store, unit.name, origin, documents))
        return Corpus(units)

    return make


@pytest.fixture
def related_texts():
    """Families of texts at every distance, and unrelated ones, in random order."""
    chance = random.Random(7)
    texts = []
    for _ in range(40):
        base = " ".join(chance.choices(WORDS, k=chance.randrange(60, 200)))
        texts += [base] + [edited(base, edits, chance) for edits in (1, 2, 3, 5, 9, 20)]
    texts += [" ".join(chance.choices(WORDS, k=80)) for _ in range(60)]
    chance.shuffle(texts)
    return texts
