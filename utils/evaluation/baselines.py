"""What counting reaches on held-out text: a token unigram and an interpolated bigram model.

Both are fitted on the training tokens of a prepared folder and scored on the tokens and bytes that
`utils.evaluation.heldout` scores a model on, so the three bits per byte can be compared. A trained
model that does not beat the bigram has learned less than a table of neighbouring pairs.
Needs no torch.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from utils.data.tokens.shards import TokenShards, iter_documents, read_dataset
from utils.errors import DataError

MIN_DISCOUNT, MAX_DISCOUNT = 0.05, 0.95
"""Bounds where counts of counts are too few for an estimate; at 0 unseen pairs were impossible."""


@dataclass(frozen=True)
class Baselines:
    """Bits per byte of the two models, with what they were fitted and scored on."""

    unigram_bpb: float
    bigram_bpb: float
    train_tokens: int
    val_tokens: int
    val_bytes: int


def fit_and_score(
    data_dir: Path, max_train_tokens: int = 20_000_000, max_val_tokens: int | None = None
) -> Baselines:
    """Return both baselines; the first whole documents of the validation split are scored.

    Raises:
        DataError: `data_dir` is no prepared folder, or a split of it is empty.
    """
    vocab_size = int(read_dataset(data_dir)["vocab_size"])
    shards = TokenShards.open(data_dir, "train")
    train = np.asarray(shards.tokens[:max_train_tokens])
    if not len(train):
        raise DataError(f"{data_dir} has no training tokens: prepare more text")
    val, text_bytes = _validation(data_dir, max_val_tokens)
    per_byte = 1 / math.log(2) / text_bytes
    unigram_nats = -Unigram.fit(train, vocab_size).log_probs(val).sum()
    bigram = Bigram.fit(train, vocab_size, shards.eos_id)
    bigram_nats = -bigram.log_probs(_previous(val, shards.eos_id), val).sum()
    return Baselines(
        float(unigram_nats * per_byte),
        float(bigram_nats * per_byte),
        len(train),
        len(val),
        text_bytes,
    )


def _validation(data_dir: Path, max_tokens: int | None) -> tuple[np.ndarray, int]:
    """Return the tokens of the first whole documents (at least one) and their UTF-8 bytes."""
    shards = TokenShards.open(data_dir, "val")
    offsets = shards.document_offsets
    count = len(offsets) - 1
    if count < 1:
        raise DataError(f"{data_dir} has no documents in its val split: prepare more text")
    if max_tokens is not None:
        count = max(1, offsets.within(max_tokens))
    texts = zip(range(count), iter_documents(data_dir, "val"), strict=False)
    text_bytes = sum(len(document["text"].encode()) for _, document in texts)
    return np.asarray(shards.tokens[: offsets[count]]), text_bytes


def _previous(tokens: np.ndarray, eos_id: int) -> np.ndarray:
    """Return the token before each one; the first follows a document's end."""
    return np.concatenate([np.array([eos_id], tokens.dtype), tokens[:-1]])


@dataclass(frozen=True)
class Unigram:
    """Token frequencies with one added to each count, so that no token is impossible."""

    probabilities: np.ndarray
    """Shape (vocab_size,), sums to 1."""

    @classmethod
    def fit(cls, tokens: np.ndarray, vocab_size: int) -> Self:
        """Count the tokens (one-dimensional ids below `vocab_size`)."""
        counts = np.bincount(tokens, minlength=vocab_size)
        return cls((counts + 1) / (len(tokens) + vocab_size))

    def log_probs(self, tokens: np.ndarray) -> np.ndarray:
        """Return ln P(token) of each token, in nats."""
        return np.log(self.probabilities)[tokens]


@dataclass(frozen=True)
class Bigram:
    """Interpolated Kneser-Ney over pairs of tokens.

    P(w|v) = max(c(vw) - D, 0) / c(v) + D N(v.) / c(v) Q(w), where N(v.) counts the different
    tokens seen after v, and Q is the same construction one order lower: from in how many different
    contexts w was seen, interpolated with the uniform distribution. D = n1 / (n1 + 2 n2) from the
    number of counts that are one and two.

    Reference: Chen and Goodman (1999), An empirical study of smoothing techniques for language
    modeling, section 3 (interpolated Kneser-Ney); D by Ney, Essen and Kneser (1994).
    """

    pairs: np.ndarray
    """Codes v * vocab_size + w of the pairs seen, sorted and unique."""
    discounted: np.ndarray
    """max(c(vw) - D, 0) / c(v) of each pair."""
    backoff: np.ndarray
    """Shape (vocab_size,): D N(v.) / c(v), the weight of Q after v; 1 after a v never seen."""
    lower: np.ndarray
    """Shape (vocab_size,): Q, sums to 1."""

    @classmethod
    def fit(cls, tokens: np.ndarray, vocab_size: int, eos_id: int) -> Self:
        """Count the pairs of a stream of documents, each followed by EOS."""
        return cls.of_codes(pair_codes(_previous(tokens, eos_id), tokens, vocab_size), vocab_size)

    @classmethod
    def of_codes(cls, codes: np.ndarray, vocab_size: int) -> Self:
        """Count pairs by their codes (`pair_codes`)."""
        pairs, counts = np.unique(codes, return_counts=True)
        contexts = (pairs // vocab_size).astype(np.int64)
        discount = _discount(counts)
        totals = np.bincount(contexts, weights=counts, minlength=vocab_size)
        followers = np.bincount(contexts, minlength=vocab_size)
        backoff = np.where(totals > 0, discount * followers / np.maximum(totals, 1), 1.0)
        discounted = np.maximum(counts - discount, 0) / totals[contexts]
        return cls(pairs, discounted, backoff, _continuations(pairs, vocab_size))

    def log_probs(self, previous: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Return ln P(token | previous token) of each position, in nats."""
        codes = pair_codes(previous, tokens, len(self.lower))
        places = np.minimum(np.searchsorted(self.pairs, codes), len(self.pairs) - 1)
        seen = np.where(self.pairs[places] == codes, self.discounted[places], 0.0)
        return np.log(seen + self.backoff[previous] * self.lower[tokens])


def pair_codes(previous: np.ndarray, tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    """Return previous * vocab_size + token, in 32 bits where they hold it (half the memory)."""
    dtype = np.uint32 if vocab_size**2 <= 2**32 else np.uint64
    return previous.astype(dtype) * dtype(vocab_size) + tokens.astype(dtype)


def _discount(counts: np.ndarray) -> float:
    """Return D = n1 / (n1 + 2 n2), kept inside its bounds."""
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return min(max(once / max(once + 2 * twice, 1), MIN_DISCOUNT), MAX_DISCOUNT)


def _continuations(pairs: np.ndarray, vocab_size: int) -> np.ndarray:
    """Return Q: the share of pairs that end in each token, discounted towards uniform."""
    counts = np.bincount((pairs % vocab_size).astype(np.int64), minlength=vocab_size)
    discount = _discount(counts)
    spared = discount * (counts > 0).sum() / len(pairs)
    return np.maximum(counts - discount, 0) / len(pairs) + spared / vocab_size
