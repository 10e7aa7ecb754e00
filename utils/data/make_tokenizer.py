"""Makes the tokenizer of a corpus: trained on a fair sample of it, or taken over."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from utils.config.prepare import PrepareConfig
from utils.data.corpus.cleaned_unit import CleanedUnit
from utils.data.corpus.corpus import Corpus
from utils.data.corpus.selection import sample
from utils.data.work.cache import ResultCache, array_digest
from utils.errors import DataError
from utils.files import fingerprint
from utils.stage import check_stop
from utils.tokenizers.foreign import take_over
from utils.tokenizers.load import load_tokenizer
from utils.tokenizers.tokenizer import Tokenizer, frozen_file
from utils.tokenizers.training import train_tokenizer, write_tokenizer

TOKENIZER_CHARACTERS = 20_000_000
"""Text the tokenizer is trained on at most: twice as much makes tokens 0.1 % longer."""
TRAINING = 1
"""Raised when the same text gives another tokenizer."""

log = logging.getLogger(__name__)


def make_tokenizer(
    cfg: PrepareConfig, corpus: Corpus, store: ResultCache, folder: Path
) -> tuple[Tokenizer, int]:
    """Train a tokenizer on the training documents, or copy the one that is to be used again.

    Returns it with the characters it was trained on (0 for a copy).

    Raises:
        DataError: the corpus is too small for such a vocabulary, or there is none to copy.
    """
    if cfg.reuse_tokenizer and cfg.tokenizer_path is not None:
        return take_over(cfg.tokenizer_path, folder), 0
    chosen = list(sample(corpus, TOKENIZER_CHARACTERS))
    total = sum(int(unit.column("characters")[numbers].sum()) for unit, numbers in chosen)
    content = [[unit.name, unit.cuts, array_digest(numbers)] for unit, numbers in chosen]
    name = f"tokenizer-{fingerprint([TRAINING, cfg.tokenizer_type, cfg.vocab_size, content])}"
    corpus.results.add(name)
    if not store.has(name):
        _train(cfg, chosen, total, folder)
        model = frozen_file(folder).read_bytes()
        store.put(name, {"model": np.frombuffer(model, np.uint8)}, None)
    else:
        write_tokenizer(folder, cfg.tokenizer_type, store.arrays(name)["model"].tobytes())
    tokenizer = load_tokenizer(folder)
    if tokenizer.vocab_size != cfg.vocab_size:
        raise DataError(
            f"this corpus gives only {tokenizer.vocab_size} of {cfg.vocab_size} vocabulary "
            "entries: lower --vocab_size, or add text"
        )
    return tokenizer, total


def _train(
    cfg: PrepareConfig, chosen: list[tuple[CleanedUnit, np.ndarray]], total: int, folder: Path
) -> None:
    size, kind = cfg.vocab_size, cfg.tokenizer_type
    log.info("training a vocabulary of %d (%s) on %.1f M characters", size, kind, total / 1e6)
    texts = (text for unit, numbers in chosen for text in unit.texts(numbers.tolist()))
    try:
        train_tokenizer(_watched(texts), folder, cfg.vocab_size, kind)
    except DataError:
        check_stop()  # the trainer turns an interruption of its input into an error of its own
        raise


def _watched(texts: Iterator[str]) -> Iterator[str]:
    for text in texts:
        check_stop()
        yield text
