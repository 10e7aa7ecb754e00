"""Weights of step 0: random, or such that the model begins as a table of neighbouring tokens.

What a model learns first is which token follows which, and to count pairs takes seconds where
training takes minutes. With `initialization bigram` embedding and head hold the interpolated
Kneser-Ney bigram of the training text, as far as a product of two V x D matrices can: the logits
that differ from those of a table without context are ln(1 + d(w|v) / (b(v) Q(w))), positive for
pairs that were seen and 0 for all others, and a truncated singular value decomposition gives s(v)
and t(w) whose product comes near them. Blocks begin at random and learn the rest.

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
from utils.data.control_tokens import ControlIds
from utils.data.packed import PackedDataset
from utils.evaluation.baselines import Bigram
from utils.model.architecture import build_model

MOST_TOKENS = 2**24
"""Tokens whose pairs are counted at most: the first rows that the run trains on."""

TAKEN = 2
"""Columns that are not of the decomposition: the constant one, and what fills up the length."""

OVERSAMPLING = 16
"""Directions that are followed beyond those that are kept."""

LONGEST_SHARE = 0.8
"""Share of the text whose tokens keep the whole length of s(v); longer ones are shortened."""

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
        embedding, head = bigram_weights(table, frequency, cfg.d_model, cfg.seed)
        weights["model.embed_tokens.weight"], weights["lm_head.weight"] = embedding, head
        log.info(
            "begins as a table of %d pairs of tokens, counted in %.0f s",
            len(table.pairs), time.monotonic() - started,
        )  # fmt: skip
    return weights


def count_pairs(
    data: PackedDataset, seed: int, vocab_size: int, pad: int
) -> tuple[Bigram, np.ndarray]:
    """Return the table of the first rows drawn, and the share of each token in them (V,)."""
    rows = min(data.num_rows, max(1, MOST_TOKENS // data.length))
    ids = data.batch(seed, 0, rows).numpy()
    previous, following = ids[:, :-1], ids[:, 1:]
    is_text = following != pad
    previous, following = previous[is_text], following[is_text]
    counts = np.bincount(following, minlength=vocab_size) + 1
    return Bigram.of_pairs(previous, following, vocab_size), counts / counts.sum()


def bigram_weights(
    table: Bigram, frequency: np.ndarray, width: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Return embedding and head (V, width) whose product has the probabilities of `table`.

    Rows of the embedding are (1, s(v), rest) of length sqrt(width), which RMSNorm leaves as they
    are, and those of the head (ln Q(w), t(w), 0). Rows and columns are weighted by the root of
    their frequency, so that the error is small where the text is.
    """
    size = len(frequency)
    rank = min(width - TAKEN, size)
    root = torch.from_numpy(frequency).sqrt().float()
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weighted = _excess(table, frequency)
        left, values, right = torch.svd_lowrank(weighted, q=min(rank + OVERSAMPLING, size))
    signal = left[:, :rank] * values[:rank].sqrt() / root[:, None]
    answer = right[:, :rank] * values[:rank].sqrt() / root[:, None]

    lengths = signal.norm(dim=1)
    longest = _quantile(lengths, torch.from_numpy(frequency), LONGEST_SHARE)
    scale = (width - 1) ** 0.5 / longest
    signal *= scale * (longest / lengths.clamp(min=longest))[:, None]
    embedding, head = torch.zeros(size, width), torch.zeros(size, width)
    embedding[:, 0] = 1
    embedding[:, 1 : rank + 1] = signal
    embedding[:, -1] = (width - 1 - signal.square().sum(1)).clamp(min=0).sqrt()
    logits = torch.from_numpy(np.log(table.lower))
    head[:, 0] = logits - (logits * torch.from_numpy(frequency)).sum()
    head[:, 1 : rank + 1] = answer / scale
    return embedding, head


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


def _quantile(values: Tensor, weights: Tensor, share: float) -> Tensor:
    """Return the value below which `share` of the weights lie."""
    order = values.argsort()
    reached = weights[order].cumsum(0) >= share * weights.sum()
    return values[order[reached.nonzero()[0, 0]]]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread: sums by several would have other bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
