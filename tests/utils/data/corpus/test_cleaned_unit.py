"""A cleaned unit gives its documents back, one by one and in order."""

import random
from dataclasses import replace

import numpy as np
import pytest

from utils.data.cleaning.batch import Rules
from utils.data.cleaning.text import clean_text
from utils.data.corpus import cleaned_unit as cleaned
from utils.data.corpus.cleaned_unit import CleanedUnit, clean_unit
from utils.data.corpus.work_units import WorkUnit
from utils.data.dedup import shingling
from utils.data.dedup.minhash import band_keys, text_digest
from utils.data.work.cache import ResultCache
from utils.reading.documents import BadLine, Document, row_line

RULES = Rules(20, 10**9, None, "py3langid", 0.5, 0.8)


@pytest.fixture
def own_texts(texts):
    return [clean_text(text) for text in texts]


@pytest.fixture
def unit(own_texts):
    documents = [Document(f"doc-{n}", text, f"label-{n % 3}") for n, text in enumerate(own_texts)]
    documents.append(Document("tiny", "tiny", "label-0"))
    batch = (*documents[:100], BadLine("a.jsonl", 7, "torn", 12), *documents[100:])
    return WorkUnit("clean-1", 4, "mine", "text", RULES, (), batch)


@pytest.fixture
def clean(unit, tmp_path, monkeypatch):
    monkeypatch.setattr(cleaned, "FRAME_BYTES", 9000)
    monkeypatch.setattr(shingling, "BATCH_CHARACTERS", 20_000)
    store = ResultCache(tmp_path)
    assert clean_unit((str(tmp_path), unit)) == unit.name
    return CleanedUnit(store, unit.name, 4, store.record(unit.name)["documents"])


def test_documents_come_back_in_any_order(clean, own_texts):
    assert clean.documents == len(own_texts)
    numbers = list(range(len(own_texts)))
    assert list(clean.texts(numbers)) == own_texts
    random.Random(1).shuffle(numbers)
    assert list(clean.texts(numbers)) == [own_texts[number] for number in numbers]
    assert clean.row(5) == {"id": "doc-5", "text": own_texts[5], "source": "label-2"}


def test_columns_belong_to_the_documents(clean, own_texts):
    assert clean.column("characters").tolist() == list(map(len, own_texts))
    digests = np.frombuffer(b"".join(map(text_digest, own_texts)), ">u8").reshape(-1, 2)
    assert (clean.column("digests") == digests).all()
    labels = [clean.record()["labels"][number] for number in clean.column("labels")]
    assert labels == [f"label-{number % 3}" for number in range(len(own_texts))]


def test_keys_of_a_range_come_sorted_with_their_documents(clean, own_texts):
    wanted = band_keys(own_texts, 0.8)
    low, high = 1 << 61, 3 << 62
    for row, column in ((1, wanted[:, 0]), (42, wanted[:, 41]), (0, clean.column("digests")[:, 0])):
        keys, numbers = clean.keys_between(row, low, high)
        assert (np.diff(keys.astype(object)) >= 0).all()
        assert (column[numbers] == keys).all()
        inside = (column >= np.uint64(low)) & (column < np.uint64(high))
        assert sorted(numbers.tolist()) == np.flatnonzero(inside).tolist()
        assert len(clean.keys_between(row, 0, 1 << 64)[0]) == len(own_texts)


def test_the_record_counts_what_did_not_come_out(clean, own_texts):
    record = clean.record()
    assert record["counts"]["documents_in"] == len(own_texts) + 1
    assert record["dropped"] == {"too_short": [1, 4]}
    assert [sample["id"] for sample in record["samples"]["too_short"]] == ["tiny"]
    assert record["bad"] == [{"file": "a.jsonl", "line": 7, "reason": "torn", "bytes": 12}]


def test_a_unit_is_cleaned_once(clean, unit, monkeypatch):
    monkeypatch.setattr(cleaned, "refine", None)
    assert clean_unit((str(clean.store.folder), unit)) == unit.name


def test_a_document_may_get_another_text_later(clean, own_texts):
    clean.store.put("cuts-1", {}, {"texts_left": {3: "shorter"}})
    cut = replace(clean, cuts="cuts-1")
    assert list(cut.texts([2, 3])) == [own_texts[2], "shorter"]
    assert next(cut.lines([3])) == row_line({"id": "doc-3", "text": "shorter", "source": "label-0"})
    assert cut.column("characters")[[2, 3]].tolist() == [len(own_texts[2]), 7]
    assert list(clean.texts([3])) == [own_texts[3]]


def test_a_unit_may_be_empty(tmp_path):
    unit = WorkUnit("clean-2", 0, "mine", "text", RULES)
    clean_unit((str(tmp_path), unit))
    empty = CleanedUnit(ResultCache(tmp_path), unit.name, 0, 0)
    assert list(empty.lines([])) == []
    assert len(empty.keys_between(0, 0, 1 << 64)[0]) == 0
    assert empty.column("characters").shape == (0,)
