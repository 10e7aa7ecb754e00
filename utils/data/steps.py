"""The steps of preparation between the sources and the shards, in the order of their use.

Each takes what the earlier ones made and gives the next what it needs; none knows the whole.
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import tee
from pathlib import Path

import numpy as np

from utils.config.filters import load_profile
from utils.config.prepare import PrepareConfig
from utils.data.cleaning.batch import Rules
from utils.data.corpus.cleaned_unit import CleanedUnit, clean_unit
from utils.data.corpus.corpus import Corpus
from utils.data.corpus.rejected import Rejected
from utils.data.corpus.selection import sample
from utils.data.corpus.work_units import WorkUnit, iter_units
from utils.data.sources import Source, fetch
from utils.data.work.cache import ResultCache, array_digest
from utils.data.work.workers import AnyWorkers
from utils.errors import DataError
from utils.files import fingerprint
from utils.log import progress
from utils.stage import check_stop
from utils.tokenizers.foreign import take_over
from utils.tokenizers.tokenizer import Tokenizer, frozen_file
from utils.tokenizers.training import train_tokenizer, write_tokenizer

TOKENIZER_CHARACTERS = 20_000_000
"""Text the tokenizer is trained on at most: twice as much makes tokens 0.1 % longer."""
TRAINING = 1
"""Raised when the same text gives another tokenizer."""

log = logging.getLogger(__name__)


def rules_of(cfg: PrepareConfig) -> Rules:
    """Return the part of the settings that cleaning needs."""
    profile = load_profile(cfg.filter_profile)
    return Rules(
        cfg.min_length,
        cfg.max_length,
        cfg.language,
        cfg.language_detector,
        cfg.language_threshold,
        cfg.minhash_threshold if cfg.use_minhash and cfg.dedup_engine == "rensa" else None,
        tuple((limit.measure, limit.min, limit.max) for limit in profile.limits),
        tuple(line.lower() for line in profile.dropped_lines),
        cfg.redact_pii,
    )


def clean(
    cfg: PrepareConfig,
    sources: list[Source],
    files: Collection[str] | None,
    store: ResultCache,
    workers: AnyWorkers,
    rejected: Rejected,
) -> tuple[list[CleanedUnit], Counter[str]]:
    """Clean every document of the sources, in order; return the units and what was counted.

    Of local sources only the files with these names; all when None.

    Raises:
        DataError: the hub cannot be reached or does not have a data set.
    """
    for source in sources:
        fetch(source, cfg.num_workers, cfg.download_workers)
    counts: Counter[str] = Counter()
    cleaned: list[CleanedUnit] = []
    kept = 0
    units, sent = tee(_units(cfg, sources, files))
    with progress("reading and cleaning", _megabytes(sources, files), "MB") as task:
        done = workers.map(clean_unit, ((str(store.folder), unit) for unit in sent))
        for name, unit in zip(done, units, strict=True):
            record = store.record(name)
            cleaned.append(CleanedUnit(store, name, unit.origin, record["documents"]))
            counts.update(record["counts"])  # `+=` would lose negative counts
            rejected.merge(unit.origin, record)
            kept += record["documents"]
            label = sources[unit.origin].label
            task.advance(unit.size / 1e6, f"{kept:,} documents kept from {label}")
    return cleaned, counts


def _megabytes(sources: list[Source], files: Collection[str] | None) -> float | None:
    """Return what is to be read; None where a stream or a limit keeps it unknown."""
    if any(source.kind != "files" or source.setting.max_samples for source in sources):
        return None
    parts = (part for source in sources for part in source.parts())
    return sum(part.size for part in parts if files is None or part.name in files) / 1e6


def _units(
    cfg: PrepareConfig, sources: list[Source], files: Collection[str] | None
) -> Iterator[WorkUnit]:
    rules = rules_of(cfg)
    for origin, source in enumerate(sources):
        yield from iter_units(source, origin, rules, cfg.text_key, cfg.num_workers, files)


def make_tokenizer(
    cfg: PrepareConfig, corpus: Corpus, store: ResultCache, folder: Path
) -> tuple[Tokenizer, int]:
    """Train a tokenizer on the training documents, or copy the one that is to be used again.

    Returns it with the characters it was trained on (0 for a copy).

    Raises:
        DataError: the corpus is too small for that many pieces, or there is none to copy.
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
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size != cfg.vocab_size:
        raise DataError(
            f"this corpus gives only {tokenizer.vocab_size} of {cfg.vocab_size} pieces: lower "
            "--vocab_size, or add text"
        )
    return tokenizer, total


def _train(
    cfg: PrepareConfig, chosen: list[tuple[CleanedUnit, np.ndarray]], total: int, folder: Path
) -> None:
    kind = cfg.tokenizer_type
    log.info("training %d pieces (%s) on %.1f M characters", cfg.vocab_size, kind, total / 1e6)
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
