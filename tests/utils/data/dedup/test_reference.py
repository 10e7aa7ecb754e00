"""datasketch with its own grams, signatures and index decides as the fast engine does."""

import random

import pytest

from tests.stage01 import prepare
from utils.config.prepare import PrepareConfig
from utils.data.corpus.corpus import Fate
from utils.data.corpus.duplicates import near_families
from utils.data.dedup.minhash import banding
from utils.data.dedup.reference import near_duplicates_by_datasketch, word_grams
from utils.data.work.workers import Workers

WORDS = [
    "w0",
    "W1",
    "\u00c9t\u00e9",
    "\u0436\u0430",
    "\u4eca\u5929",
    *(f"w{n}" for n in range(2, 300)),
]


def _texts():
    chance = random.Random(11)
    texts = ["", "...", "one", "one", "\u4eca\u5929 \u4eca\u5929"]
    for _ in range(30):
        words = chance.choices(WORDS, k=chance.randrange(5, 120))
        for edits in (0, 1, 2, 4, 9):
            for _ in range(edits):
                words[chance.randrange(len(words))] = chance.choice(WORDS)
            texts.append(" ".join(words))
    chance.shuffle(texts)
    return texts


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_both_engines_decide_the_same(corpus_of, threshold):
    texts = [text for text in _texts() if text]
    corpus = corpus_of(texts, threshold)
    corpus.fates[::7] = Fate.EXACT_DUPLICATE
    pairs = [(number, text) for number, text in enumerate(texts) if number % 7]
    fast = near_families(corpus, banding(threshold)[0], threshold, Workers(1))
    plain = near_duplicates_by_datasketch(pairs, len(texts), threshold)
    assert len(list(fast.later_members())) > 20
    assert [fast.root(n) for n in range(len(texts))] == [plain.root(n) for n in range(len(texts))]


def test_grams_are_tuples_of_folded_words():
    assert word_grams("A b, c D e f") == {("a", "b", "c", "d", "e"), ("b", "c", "d", "e", "f")}
    assert word_grams("one") == {("one", "", "", "", "")}
    assert word_grams("...") == frozenset()


def test_the_setting_chooses_the_engine_and_the_documents_are_the_same(tmp_path):
    corpus = tmp_path / "texts"
    corpus.mkdir()
    for number, text in enumerate(_texts()):
        (corpus / f"{number:03d}.txt").write_text(text, encoding="utf-8")
    folders = [
        prepare(
            PrepareConfig(
                input_path=str(corpus), output_dir=tmp_path / engine, dedup_engine=engine,
                language=None, min_length=1, vocab_size=400, num_workers=1,
            )
        )
        for engine in ("rensa", "datasketch")
    ]  # fmt: skip
    one, two = ((folder / "train_00000.jsonl").read_text("utf-8") for folder in folders)
    assert one == two
