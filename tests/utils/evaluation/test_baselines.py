import json
import math
from collections import Counter

import numpy as np
import pytest

from utils.evaluation.baselines import Bigram, Unigram, fit_and_score, pair_codes

VOCAB_SIZE = 12
RNG = np.random.default_rng(0)
# A skewed stream of documents that end with token 2; token 11 never occurs.
STREAM = np.minimum(RNG.geometric(0.3, size=600) + 1, 10).astype(np.uint16)


def brute_force_kneser_ney(tokens, vocab_size):
    """The formula of Chen and Goodman with dictionaries, one probability at a time."""
    pairs = Counter(zip([2, *tokens[:-1]], tokens, strict=True))
    context_totals = Counter()
    followers = Counter()
    predecessors = Counter()
    for (before, after), count in pairs.items():
        context_totals[before] += count
        followers[before] += 1
        predecessors[after] += 1

    def discount_of(counts):
        once, twice = counts.count(1), counts.count(2)
        return min(max(once / max(once + 2 * twice, 1), 0.05), 0.95)

    high = discount_of(list(pairs.values()))
    low = discount_of(list(predecessors.values()))

    def continuation(token):
        kept = max(predecessors[token] - low, 0) / len(pairs)
        return kept + low * len(predecessors) / len(pairs) / vocab_size

    def probability(before, after):
        if not context_totals[before]:
            return continuation(after)
        kept = max(pairs[before, after] - high, 0) / context_totals[before]
        return kept + high * followers[before] / context_totals[before] * continuation(after)

    return probability


def test_bigram_equals_a_brute_force_implementation_for_every_pair():
    model = Bigram.fit(STREAM, VOCAB_SIZE, 2)
    oracle = brute_force_kneser_ney(STREAM.tolist(), VOCAB_SIZE)
    for before in range(VOCAB_SIZE):
        after = np.arange(VOCAB_SIZE)
        found = np.exp(model.log_probs(np.full(VOCAB_SIZE, before), after))
        wanted = [oracle(before, token) for token in range(VOCAB_SIZE)]
        assert found == pytest.approx(wanted, rel=1e-12)


def test_probabilities_over_the_vocabulary_sum_to_one_after_every_token():
    model = Bigram.fit(STREAM, VOCAB_SIZE, 2)
    for before in range(VOCAB_SIZE):
        log_probs = model.log_probs(np.full(VOCAB_SIZE, before), np.arange(VOCAB_SIZE))
        assert np.exp(log_probs).sum() == pytest.approx(1, abs=1e-12)
    assert Unigram.fit(STREAM, VOCAB_SIZE).probabilities.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("tokens", [[5], [5, 5, 5], [4, 5, 4, 5, 2]])
def test_no_probability_is_zero_however_little_was_seen(tokens):
    model = Bigram.fit(np.array(tokens, np.uint16), VOCAB_SIZE, 2)
    for before in range(VOCAB_SIZE):
        log_probs = model.log_probs(np.full(VOCAB_SIZE, before), np.arange(VOCAB_SIZE))
        assert np.isfinite(log_probs).all()
        assert np.exp(log_probs).sum() == pytest.approx(1)


def test_unigram_adds_one_to_each_count():
    model = Unigram.fit(np.array([3, 3, 4]), 6)
    assert model.probabilities.tolist() == pytest.approx([1 / 9, 1 / 9, 1 / 9, 3 / 9, 2 / 9, 1 / 9])


@pytest.mark.parametrize("vocab_size", [65_536, 70_000])
def test_pair_codes_hold_the_largest_pair(vocab_size):
    last = np.array([vocab_size - 1], np.uint32)
    assert int(pair_codes(last, last, vocab_size)[0]) == vocab_size**2 - 1


def read_documents(folder, split):
    manifest = json.loads((folder / "manifest.json").read_text())["splits"][split]
    tokens, texts = [], []
    for name in manifest["token_shards"]:
        tokens += np.fromfile(folder / name, "<u2").tolist()
    for name in manifest["text_shards"]:
        texts += [json.loads(line)["text"] for line in (folder / name).read_text().splitlines()]
    return tokens, texts


def test_bits_per_byte_of_a_prepared_folder_equal_the_definition(prepared_dir):
    train, _ = read_documents(prepared_dir, "train")
    val, texts = read_documents(prepared_dir, "val")
    oracle = brute_force_kneser_ney(train, 600)
    text_bytes = sum(len(text.encode()) for text in texts)
    pairs = zip([2, *val[:-1]], val, strict=True)
    bits = -sum(math.log2(oracle(before, after)) for before, after in pairs)
    counts = Counter(train)
    unigram_bits = -sum(math.log2((counts[token] + 1) / (len(train) + 600)) for token in val)

    found = fit_and_score(prepared_dir)

    assert found.bigram_bpb == pytest.approx(bits / text_bytes, rel=1e-10)
    assert found.unigram_bpb == pytest.approx(unigram_bits / text_bytes, rel=1e-10)
    assert (found.train_tokens, found.val_tokens) == (len(train), len(val))
    assert found.val_bytes == text_bytes
    assert found.bigram_bpb < found.unigram_bpb < 8


def test_only_whole_documents_within_the_limit_are_scored(prepared_dir):
    val, texts = read_documents(prepared_dir, "val")
    ends = [place + 1 for place, token in enumerate(val) if token == 2]
    found = fit_and_score(prepared_dir, max_train_tokens=500, max_val_tokens=ends[2] + 1)
    assert found.train_tokens == 500
    assert found.val_tokens == ends[2]
    assert found.val_bytes == sum(len(text.encode()) for text in texts[:3])
    first = fit_and_score(prepared_dir, max_val_tokens=1)
    assert first.val_tokens == ends[0]
