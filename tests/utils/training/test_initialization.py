"""Weights of step 0."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from tests.utils.training.toy import bits, settings, train
from utils.data.control_tokens import ControlIds
from utils.data.packed import PackedDataset
from utils.errors import ConfigError
from utils.evaluation.baselines import Bigram, fit_and_score
from utils.model.architecture import build_model
from utils.training import initialization
from utils.training.initialization import bigram_weights, count_pairs, initial_weights
from utils.training.validation import ValidationSet, bits_per_byte

BIGRAM = dict(initialization="bigram", tie_embeddings=False)
SIZE = 30
RNG = np.random.default_rng(0)
STREAM = np.minimum(RNG.geometric(0.15, size=4000) + 2, SIZE - 3)
"""Skewed, and without the last two pieces."""


def table():
    frequency = np.bincount(STREAM, minlength=SIZE) + 1
    return Bigram.fit(STREAM, SIZE, 2), frequency / frequency.sum()


def log_probs(embedding, head):
    """What a model without blocks says after each token: RMSNorm, head, softmax."""
    normed = torch.nn.functional.rms_norm(embedding, embedding.shape[1:])
    return (normed @ head.T).log_softmax(-1).numpy()


def test_with_enough_columns_the_weights_are_the_table(monkeypatch):
    monkeypatch.setattr(initialization, "LONGEST_SHARE", 1.0)  # no row is shortened
    model, frequency = table()
    found = log_probs(*bigram_weights(model, frequency, SIZE + 2, 0))
    after = np.arange(SIZE)
    for before in range(SIZE):
        wanted = model.log_probs(np.full(SIZE, before), after)
        assert found[before] == pytest.approx(wanted, abs=1e-3)


def test_fewer_columns_are_nearer_than_none_and_rows_have_one_length():
    model, frequency = table()
    exact = np.stack([model.log_probs(np.full(SIZE, v), np.arange(SIZE)) for v in range(SIZE)])
    joint = frequency[:, None] * np.exp(exact)
    gaps = []
    for width in (3, 8, 16, SIZE + 2):
        embedding, head = bigram_weights(model, frequency, width, 0)
        assert embedding.shape == head.shape == (SIZE, width)
        assert embedding.square().mean(1).numpy() == pytest.approx(np.ones(SIZE), rel=1e-5)
        gaps.append(float((joint * (exact - log_probs(embedding, head))).sum()))
    assert gaps == sorted(gaps, reverse=True)
    assert 0 < gaps[-1] < 0.02 < gaps[0]


def test_bits_do_not_depend_on_threads_and_the_generator_of_the_run_stays_as_it_was():
    model, frequency = table()
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(bigram_weights(model, frequency, 8, 7))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_pairs_are_those_of_the_rows_and_padding_is_none(prepared_dir):
    data = PackedDataset.open(prepared_dir, "train", 32, packing="best_fit")
    found, _ = count_pairs(data, 42, 600, 3)
    rows = data.batch(42, 0, data.num_rows).tolist()
    pairs = {(a, b) for row in rows for a, b in pairwise(row) if b != 3}
    assert any(3 in row for row in rows)
    assert {divmod(int(code), 600) for code in found.pairs} == pairs


def test_only_the_first_rows_are_counted(prepared_dir, monkeypatch):
    monkeypatch.setattr(initialization, "MOST_TOKENS", 100)
    data = PackedDataset.open(prepared_dir, "train", 32)
    found, frequency = count_pairs(data, 42, 600, 3)
    assert len(found.pairs) <= 3 * 31
    assert frequency.sum() == pytest.approx(1)


def test_all_else_is_as_at_random(prepared_dir, tmp_path):
    cfg = settings(prepared_dir, tmp_path, **BIGRAM)
    found = initial_weights(cfg, PackedDataset.open(prepared_dir, "train", 32), ControlIds())
    fresh = dict(build_model(cfg, cfg.seed).named_parameters())
    same = {name for name in fresh if torch.equal(found[name], fresh[name])}
    assert set(found) == set(fresh)
    assert set(fresh) - same == {"model.embed_tokens.weight", "lm_head.weight"}


def test_a_model_that_did_not_train_beats_the_unigram(prepared_dir, tmp_path):
    cfg = settings(prepared_dir, tmp_path, d_model=128, **BIGRAM)
    model = build_model(cfg, cfg.seed)
    data = PackedDataset.open(prepared_dir, "train", 32)
    model.load_state_dict(initial_weights(cfg, data, ControlIds()))
    held_out = ValidationSet.open([prepared_dir], 32, 10_000)
    assert bits_per_byte(model, held_out, 8)[0] < fit_and_score(prepared_dir).unigram_bpb


def test_a_run_begins_so_and_ends_the_same_when_it_is_cut(prepared_dir, tmp_path):
    class Cut(Exception):
        pass

    def cut(trainer):
        if trainer.state.step == 3:
            raise Cut

    whole = train(settings(prepared_dir, tmp_path / "whole", max_steps=6, **BIGRAM))
    other = settings(prepared_dir, tmp_path / "cut", max_steps=6, save_steps=2, **BIGRAM)
    with pytest.raises(Cut):
        train(other, cut)
    assert bits(train(other)) == bits(whole)
    random = settings(prepared_dir, tmp_path / "r", max_steps=6, tie_embeddings=False)
    assert bits(train(random)) != bits(whole)


def test_one_matrix_for_both_is_refused(prepared_dir, tmp_path):
    with pytest.raises((ConfigError, ValueError), match="tie_embeddings"):
        settings(prepared_dir, tmp_path, initialization="bigram")
