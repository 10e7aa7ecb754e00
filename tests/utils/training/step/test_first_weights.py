"""Weights of step 0."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from tests.utils.training.toy import bits, settings, train
from utils.data.tokens.rows import PackedDataset
from utils.evaluation.baselines import Bigram, fit_and_score
from utils.model.architecture import build_model
from utils.tokenizers.control_tokens import ControlIds
from utils.training.step import first_weights as initialization
from utils.training.step.first_weights import (
    count_pairs,
    embedding_and_head,
    initial_weights,
    tied_matrix,
)
from utils.training.step.validation import ValidationSet, bits_per_byte

BIGRAM = dict(initialization="bigram", tie_embeddings=False)
SIZE = 30
RNG = np.random.default_rng(0)
STREAM = np.concatenate([np.arange(SIZE), np.minimum(RNG.geometric(0.15, size=4000), SIZE) - 1])
"""Skewed, with every token."""


def table(size=SIZE):
    frequency = np.bincount(STREAM, minlength=size) + 1
    return Bigram.fit(STREAM, size, 2), frequency / frequency.sum()


def log_probs(embedding, head):
    """What a model without blocks says after each token: RMSNorm, head, softmax."""
    normed = torch.nn.functional.rms_norm(embedding, embedding.shape[1:])
    return (normed @ head.T).log_softmax(-1).numpy()


def test_with_enough_columns_the_weights_are_the_table(monkeypatch):
    monkeypatch.setattr(initialization, "LONGEST_SHARE", 1.0)  # no row is shortened
    model, frequency = table()
    found = log_probs(*embedding_and_head(model, frequency, SIZE + 2, 0))
    after = np.arange(SIZE)
    for before in range(SIZE):
        wanted = model.log_probs(np.full(SIZE, before), after)
        assert found[before] == pytest.approx(wanted, abs=1e-3)


def test_one_matrix_for_both_holds_the_table_in_two_halves(monkeypatch):
    monkeypatch.setattr(initialization, "LONGEST_SHARE", 1.0)
    model, frequency = table()
    both = tied_matrix(model, frequency, 2 * SIZE + 1, 0).double()
    answer, signal = both[:, 1 : SIZE + 1], both[:, SIZE + 1 :]
    assert both[:, 1:].reshape(SIZE, 2, SIZE).norm(dim=2).max() == pytest.approx(2, abs=1e-5)
    after = np.arange(SIZE)
    wanted = np.stack([model.log_probs(np.full(SIZE, v), after) for v in range(SIZE)])
    rest = torch.from_numpy(wanted) - both[:, 0] / initialization.FREQUENCY_SCALE
    rest -= rest.min(1, keepdim=True).values  # pairs never seen have no excess
    product = signal @ answer.T
    scale = (rest * product).sum() / product.square().sum()
    assert (scale * product - rest).abs().max() < 1e-3 * rest.max()


def test_tokens_that_the_text_does_not_have_differ():
    model, frequency = table(SIZE + 3)
    matrices = [
        *embedding_and_head(model, frequency, 16, 0), tied_matrix(model, frequency, 16, 0)
    ]  # fmt: skip
    for rows in matrices:
        distances = torch.pdist(rows[SIZE:])
        assert distances.min() > 0.3 * rows[:SIZE].norm(dim=1).mean()
        assert torch.isfinite(rows).all()


@pytest.mark.parametrize("width", [2, 3, 4, 200])
def test_any_width_and_a_text_of_one_token_give_numbers(width):
    model, frequency = Bigram.fit(np.full(9, 4), 6, 4), np.full(6, 1 / 6)
    embedding, head = embedding_and_head(model, frequency, width, 0)
    both = tied_matrix(model, frequency, width, 0)
    assert embedding.shape == head.shape == both.shape == (6, width)
    assert all(torch.isfinite(matrix).all() for matrix in (embedding, head, both))


def test_fewer_columns_are_nearer_than_none_and_rows_have_one_length():
    model, frequency = table()
    exact = np.stack([model.log_probs(np.full(SIZE, v), np.arange(SIZE)) for v in range(SIZE)])
    joint = frequency[:, None] * np.exp(exact)
    gaps = []
    for width in (3, 8, 16, SIZE + 2):
        embedding, head = embedding_and_head(model, frequency, width, 0)
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
            found.append(embedding_and_head(model, frequency, 8, 7))
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


@pytest.mark.parametrize("tied", [False, True])
def test_all_else_is_as_at_random(tied, prepared_dir, tmp_path):
    cfg = settings(prepared_dir, tmp_path, initialization="bigram", tie_embeddings=tied)
    found = initial_weights(cfg, PackedDataset.open(prepared_dir, "train", 32), ControlIds())
    fresh = dict(build_model(cfg, cfg.seed).named_parameters())
    same = {name for name in fresh if torch.equal(found[name], fresh[name])}
    assert set(found) == set(fresh)
    changed = {"model.embed_tokens.weight"} | (set() if tied else {"lm_head.weight"})
    assert set(fresh) - same == changed


def test_a_model_that_did_not_train_beats_the_unigram(prepared_dir, tmp_path):
    cfg = settings(prepared_dir, tmp_path, d_model=128, **BIGRAM)
    model = build_model(cfg, cfg.seed)
    data = PackedDataset.open(prepared_dir, "train", 32)
    model.load_state_dict(initial_weights(cfg, data, ControlIds()))
    held_out = ValidationSet.open([prepared_dir], 32, 10_000)
    assert bits_per_byte(model, held_out, 8)[0] < fit_and_score(prepared_dir).unigram_bpb


@pytest.mark.parametrize("tied", [False, True])
def test_a_run_begins_so_and_ends_the_same_when_it_is_cut(tied, prepared_dir, tmp_path):
    class Cut(Exception):
        pass

    def cut(trainer):
        if trainer.state.step == 3:
            raise Cut

    common = dict(max_steps=6, tie_embeddings=tied)
    bigram = common | dict(initialization="bigram")
    whole = train(settings(prepared_dir, tmp_path / "whole", **bigram))
    other = settings(prepared_dir, tmp_path / "cut", save_steps=2, **bigram)
    with pytest.raises(Cut):
        train(other, cut)
    assert bits(train(other)) == bits(whole)
    assert bits(train(settings(prepared_dir, tmp_path / "random", **common))) != bits(whole)
