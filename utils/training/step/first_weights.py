"""Weights of step 0: random, or such that the model knows which token follows which.

That is what a model learns first, and to count pairs takes seconds where training takes minutes.
What the interpolated Kneser-Ney bigram of the training text says of a pair beyond the frequency of
the second token is ln(1 + d(w|v) / (b(v) Q(w))), positive for pairs that were seen and 0 for all
others; a truncated singular value decomposition gives s(v) and t(w) whose product comes near it.
`initialization bigram` puts them into embedding and head. With a head of its own the model begins
as that table; where both are one matrix its rows hold s and t side by side, so that the answers are
in place and blocks only have to carry s into t. Blocks begin at random.

Reference: pairs as a matrix to be factored, Levy and Goldberg (2014); the decomposition, Halko,
Martinsson and Tropp (2011), by `torch.svd_lowrank`.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from utils.config.pretrain import PretrainConfig
from utils.data.tokens.rows import ORDER_BLOCK, PackedDataset
from utils.evaluation.baselines import Bigram, pair_codes
from utils.model.architecture import build_model
from utils.tokenizers.control_tokens import ControlIds

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"

MOST_TOKENS = 2**24
"""Tokens whose pairs are counted at most: the first rows that the run trains on."""

OVERSAMPLING = 16
"""Directions that are followed beyond those that are kept."""

LONGEST_SHARE = 0.8
"""Share of the text whose tokens keep the whole length of their rows; longer ones are shortened."""

TIED_LENGTH, FREQUENCY_SCALE = 2.0, 0.25
"""In a matrix that is both embedding and head: the most of s and t, and the factor of ln Q(w)."""

SHORTEST = 1e-6
"""Length of a row that is divided by at least."""

log = logging.getLogger(__name__)


def initial_weights(
    cfg: PretrainConfig, data: PackedDataset, control: ControlIds
) -> dict[str, Tensor]:
    """Return every parameter of step 0 by name, fp32 on the CPU; equal arguments, equal bits."""
    model = build_model(cfg, cfg.seed, control=control)
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    if cfg.initialization == "bigram":
        started = time.monotonic()
        table, frequency = count_pairs(data, cfg.seed, cfg.vocab_size, control.pad)
        if cfg.tie_embeddings:
            weights[EMBEDDING] = tied_matrix(table, frequency, cfg.d_model, cfg.seed)
        else:
            both = embedding_and_head(table, frequency, cfg.d_model, cfg.seed)
            weights[EMBEDDING], weights[HEAD] = both
        log.info(
            "begins with %d pairs of tokens in its embedding, counted in %.0f s",
            len(table.pairs), time.monotonic() - started,
        )  # fmt: skip
    return weights


def count_pairs(
    data: PackedDataset, seed: int, vocab_size: int, pad: int
) -> tuple[Bigram, np.ndarray]:
    """Return the table of the first rows drawn, and the share of each token in them (V,)."""
    rows = min(data.num_rows, max(1, MOST_TOKENS // data.length))
    counts, codes = np.ones(vocab_size), []
    for first in range(0, rows, ORDER_BLOCK):
        ids = data.batch(seed, first, min(ORDER_BLOCK, rows - first)).numpy()
        is_text = ids[:, 1:] != pad
        previous, following = ids[:, :-1][is_text], ids[:, 1:][is_text]
        counts += np.bincount(following, minlength=vocab_size)
        codes.append(pair_codes(previous, following, vocab_size))
    return Bigram.of_codes(np.concatenate(codes), vocab_size), counts / counts.sum()


def embedding_and_head(
    table: Bigram, frequency: np.ndarray, width: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Return two matrices (V, width) that are `table`: logits = rms_norm(embedding) @ head.T.

    Rows of the embedding are (1, s(v), rest) of length sqrt(width), which RMSNorm leaves as they
    are, and those of the head (ln Q(w), t(w), 0).
    """
    signal, answer = _factors(table, frequency, width - 2, seed)
    signal, longest = _shortened(signal, frequency)
    scale = (width - 1) ** 0.5
    signal *= scale
    end = 1 + signal.shape[1]
    embedding, head = torch.zeros(len(frequency), width), torch.zeros(len(frequency), width)
    embedding[:, 0] = 1
    embedding[:, 1:end] = signal
    embedding[:, -1] = (width - 1 - signal.square().sum(1)).clamp(min=0).sqrt()
    head[:, 0] = _log_frequency(table, frequency)
    head[:, 1:end] = answer * (longest / scale)
    return embedding, head


def tied_matrix(table: Bigram, frequency: np.ndarray, width: int, seed: int) -> Tensor:
    """Return one matrix (V, width) with rows (ln Q(w), t(w), s(w)), each scaled."""
    signal, answer = _factors(table, frequency, (width - 1) // 2, seed)
    rank = signal.shape[1]
    both = torch.zeros(len(frequency), width)
    both[:, 0] = FREQUENCY_SCALE * _log_frequency(table, frequency)
    both[:, 1 : rank + 1] = TIED_LENGTH * _shortened(answer, frequency)[0]
    both[:, rank + 1 : 2 * rank + 1] = TIED_LENGTH * _shortened(signal, frequency)[0]
    return both


def _factors(table: Bigram, frequency: np.ndarray, rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return s and t, (V, rank) each, less where there are fewer tokens.

    Rows and columns are weighted by the root of their frequency, so that the error is small where
    the text is. Tokens that the text does not have (those of chats) are random, for fine-tuning
    must tell them apart.
    """
    size = len(frequency)
    root = torch.from_numpy(frequency).sqrt().float()[:, None]
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weighted = _excess(table, frequency)
        left, values, right = torch.svd_lowrank(weighted, q=min(rank + OVERSAMPLING, size))
        roots = values[:rank].sqrt()
        previous, following = weighted.indices()
        signal = _filled(left[:, :rank] * roots / root, previous.unique())
        answer = _filled(right[:, :rank] * roots / root, following.unique())
    return signal, answer


def _filled(rows: Tensor, seen: Tensor) -> Tensor:
    """Return `rows` with all but those `seen` drawn at random, as long as they are on average."""
    drawn = torch.randn(rows.shape)
    drawn *= rows[seen].norm(dim=1).mean() / drawn.norm(dim=1, keepdim=True).clamp(min=SHORTEST)
    drawn[seen] = rows[seen]
    return drawn


def _excess(table: Bigram, frequency: np.ndarray) -> Tensor:
    """Return the weighted ln(1 + d(w|v) / (b(v) Q(w))), a sparse (V, V)."""
    size = len(frequency)
    previous, following = (table.pairs // size).astype(np.int64), table.pairs % size
    following = following.astype(np.int64)
    values = np.log1p(table.discounted / (table.backoff[previous] * table.lower[following]))
    values *= np.sqrt(frequency[previous] * frequency[following])
    places = torch.from_numpy(np.stack([previous, following]))
    entries = torch.from_numpy(values.astype(np.float32))
    return torch.sparse_coo_tensor(
        places, entries, (size, size), is_coalesced=True, check_invariants=False
    )


def _log_frequency(table: Bigram, frequency: np.ndarray) -> Tensor:
    """Return ln Q(w) with mean 0 over the text, (V,)."""
    logits = np.log(table.lower)
    return torch.from_numpy(logits - (logits * frequency).sum()).float()


def _shortened(rows: Tensor, frequency: np.ndarray) -> tuple[Tensor, float]:
    """Return rows at most 1 long, and the length that became 1; longer ones lose the rest."""
    lengths = rows.norm(dim=1)
    order = lengths.argsort()
    reached = torch.from_numpy(frequency)[order].cumsum(0) >= LONGEST_SHARE * frequency.sum()
    longest = max(float(lengths[order[reached.nonzero()[0, 0]]]), SHORTEST)
    return rows / lengths.clamp(min=longest)[:, None], longest


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread: sums by several would have other bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
