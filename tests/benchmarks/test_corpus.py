"""Deduplication drops what an exact join of all pairs drops, on a fresh corpus each time."""

import json
import random

import pytest

from tests.benchmarks.corpus import (
    LEVELS,
    WORDS,
    build_corpus,
    gram_set,
    near_copy,
    repetitions,
    similar_pairs,
    similarity,
)
from tests.benchmarks.data_run import deduplicate, dropped_ids
from tests.stage01 import prepare
from utils.config.prepare import PrepareConfig
from utils.data.tokens.shards import iter_documents
from utils.data.work.workers import Workers


def _prose(chance, words=80):
    return " ".join(chance.choices(WORDS, k=words))


@pytest.mark.parametrize("level", LEVELS)
def test_near_copies_are_just_at_their_level(level):
    chance = random.Random(int(level * 100))
    text = _prose(chance, 400)
    found = similarity(gram_set(text), gram_set(near_copy(text, level, chance)))
    assert level <= found < level + 0.03


def test_the_join_finds_the_pairs_of_a_plain_double_loop():
    chance = random.Random(3)
    texts = [_prose(chance, 30) for _ in range(60)]
    texts += [near_copy(chance.choice(texts), level, chance) for level in LEVELS * 8]
    sets = [gram_set(text) for text in texts]
    for threshold in (0.5, 0.8, 1.0):
        plain = {(a, b) for a in range(len(sets)) for b in range(a)
                 if similarity(sets[a], sets[b]) >= threshold}  # fmt: skip
        assert set(similar_pairs(sets, threshold)) == plain and plain


def test_repetitions_reach_over_others_and_ignore_white_space():
    words = [f"a{number}" for number in range(60)]
    second, third = ["x"] * 4 + words[4:], ["x"] * 4 + words[4:-4] + ["y"] * 4
    texts = [" ".join(words), " ".join(third), "  ".join(words), " ".join(second)]
    assert repetitions(texts, 0.8) == {1, 2, 3}  # 1 resembles 3 alone, and 3 resembles 0


def test_preparation_drops_what_the_exact_join_drops(tmp_path):
    seed = random.SystemRandom().randrange(10**6)
    chance = random.Random(seed)
    source = [_prose(chance, chance.randint(30, 90)) for _ in range(2000)]
    built = build_corpus(source, tmp_path / "corpus.jsonl", 1.5, seed)
    texts = [json.loads(line)["text"] for line in built.path.open()]
    cfg = PrepareConfig.build({
        "input_path": str(built.path), "output_dir": tmp_path / "out", "vocab_size": 600,
        "language": None, "max_length": 100_000, "decontaminate": False, "num_workers": 1,
    })  # fmt: skip
    folder = prepare(cfg)
    rows = [row for split in ("train", "val") for row in iter_documents(folder, split)]
    dropped = set(range(len(texts))) - {int(row["id"]) for row in rows}
    wanted = repetitions(texts, 0.8)
    assert built.exact and sum(built.near.values()) and len(wanted) > built.exact
    assert dropped == wanted, f"seed {seed}"
    with Workers(1) as pool:
        found, seconds = deduplicate(built.path, tmp_path, pool, "rensa")
    assert set(dropped_ids(found)) == wanted and seconds["cpu_s"] > 0
