"""The steps of preparation between the sources and the shards, in the order of their use.

Each takes what the earlier ones made and gives the next what it needs; none knows the whole.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from itertools import tee
from pathlib import Path

import numpy as np

from utils.config.filters import load_profile
from utils.config.prepare import PrepareConfig
from utils.data.cleaned import Cleaned, clean_unit
from utils.data.corpus import Corpus, Fate
from utils.data.dedup import Families
from utils.data.dedup_reference import near_duplicates_by_datasketch
from utils.data.duplicates import exact_families, mark, near_families
from utils.data.filters import Rules
from utils.data.rejected import SAMPLES_PER_REASON, Rejected
from utils.data.selection import balance, sample
from utils.data.sources import Source, fetch
from utils.data.store import Store, array_digest
from utils.data.tokenizer import MODEL_FILE, Tokenizer, save_hf_tokenizer, train_tokenizer
from utils.data.units import Unit, iter_units
from utils.data.workers import AnyWorkers, check_stop
from utils.errors import DataError
from utils.files import fingerprint
from utils.log import progress

TOKENIZER_CHARACTERS = 20_000_000
"""Text the tokenizer is trained on at most: twice as much makes tokens 0.1 % longer."""
TRAINING = 1
"""Raised when the same text gives another tokenizer."""
SAMPLE_CHARACTERS = 500
"""Beginning of a dropped document that is written down."""

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
    cfg: PrepareConfig, sources: list[Source], store: Store, workers: AnyWorkers, rejected: Rejected
) -> tuple[Corpus, Counter[str]]:
    """Clean every document of the sources, in order; return the corpus and what was counted."""
    for source in sources:
        fetch(source, cfg.num_workers)
    counts: Counter[str] = Counter()
    cleaned: list[Cleaned] = []
    kept = 0
    units, sent = tee(_units(cfg, sources))
    with progress("reading and cleaning") as task:
        done = workers.map(clean_unit, ((str(store.folder), unit) for unit in sent))
        for name, unit in zip(done, units, strict=True):
            record = store.record(name)
            cleaned.append(Cleaned(store, name, unit.origin, record["documents"]))
            counts.update(record["counts"])  # `+=` would lose negative counts
            rejected.merge(record)
            kept += record["documents"]
            label = sources[unit.origin].label
            task.advance(record["counts"].get("documents_in", 0), f"{kept:,} kept from {label}")
    return Corpus(cleaned), counts


def _units(cfg: PrepareConfig, sources: list[Source]) -> Iterator[Unit]:
    rules = rules_of(cfg)
    for origin, source in enumerate(sources):
        yield from iter_units(source, origin, rules, cfg.text_key, cfg.num_workers)


def drop_duplicates(
    cfg: PrepareConfig, corpus: Corpus, workers: AnyWorkers, rejected: Rejected
) -> None:
    """Give the documents that repeat an earlier one their fate, and write down the first of them."""
    exact = exact_families(corpus)
    _report(corpus, Fate.EXACT_DUPLICATE, rejected, exact)
    if cfg.use_minhash:
        is_fast = cfg.dedup_engine == "rensa"
        near = _by_rensa(cfg, corpus, workers) if is_fast else _by_datasketch(cfg, corpus)
        _report(corpus, Fate.NEAR_DUPLICATE, rejected, near)


def _by_rensa(cfg: PrepareConfig, corpus: Corpus, workers: AnyWorkers) -> Families:
    bands = rules_of(cfg).bands
    with progress("near-duplicates", total=bands) as task:

        def watch(band: int) -> None:
            check_stop()
            task.advance(band - task.done)

        return near_families(corpus, bands, cfg.minhash_threshold, workers, watch)


def _by_datasketch(cfg: PrepareConfig, corpus: Corpus) -> Families:
    numbers = np.flatnonzero(corpus.fates == Fate.TRAIN).tolist()
    with progress("near-duplicates", total=len(numbers)) as task:

        def watch() -> None:
            check_stop()
            task.advance()

        texts = zip(numbers, corpus.texts(Fate.TRAIN), strict=True)
        families = near_duplicates_by_datasketch(texts, len(corpus), cfg.minhash_threshold, watch)
    mark(corpus, families)
    return families


def _report(
    corpus: Corpus, fate: Fate, rejected: Rejected, families: Families | None = None
) -> None:
    """Count the documents of a fate, and write down the first of them with what they repeat."""
    reason = fate.name.lower()
    for number in np.flatnonzero(corpus.fates == fate)[:SAMPLES_PER_REASON].tolist():
        row = corpus.row(number)
        detail = "more than its source's share"
        if families is not None:
            detail = f"of {corpus.row(families.root(number))['id']}"
        text = row["text"]
        record = {"id": row["id"], "detail": detail, "characters": len(text)}
        rejected.write(reason, record | {"text": text[:SAMPLE_CHARACTERS]})
    for unit, fates in corpus.parts():
        if (fates == fate).any():
            lost = unit.column("characters")[fates == fate]
            rejected.count(reason, len(lost), int(lost.sum()))


def balance_sources(corpus: Corpus, weights: list[float], rejected: Rejected) -> None:
    """Drop documents so that a mixture has its wanted shares of the characters."""
    if len(weights) > 1:
        balance(corpus, weights)
        _report(corpus, Fate.OVER_MIXTURE_WEIGHT, rejected)


def make_tokenizer(
    cfg: PrepareConfig, corpus: Corpus, store: Store, folder: Path
) -> tuple[Tokenizer, int]:
    """Train a tokenizer on the training documents, or copy the one that is to be used again.

    Returns it with the characters it was trained on (0 for a copy).

    Raises:
        DataError: the corpus is too small for that many pieces, or there is none to copy.
    """
    if cfg.reuse_tokenizer and cfg.tokenizer_path is not None:
        tokenizer = Tokenizer.load(cfg.tokenizer_path.expanduser())
        save_hf_tokenizer(cfg.tokenizer_path.expanduser(), folder)
        return tokenizer, 0
    chosen = list(sample(corpus, TOKENIZER_CHARACTERS))
    total = sum(int(unit.column("characters")[numbers].sum()) for unit, numbers in chosen)
    content = [[unit.name, unit.cuts, array_digest(numbers)] for unit, numbers in chosen]
    name = f"tokenizer-{fingerprint([TRAINING, cfg.vocab_size, content])}"
    corpus.results.add(name)
    if not store.has(name):
        _train(cfg, chosen, total, folder)
        model = (folder / MODEL_FILE).read_bytes()
        store.put(name, {"model": np.frombuffer(model, np.uint8)}, None)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MODEL_FILE).write_bytes(store.arrays(name)["model"].tobytes())
        save_hf_tokenizer(folder, folder)
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size != cfg.vocab_size:
        raise DataError(
            f"this corpus gives only {tokenizer.vocab_size} of {cfg.vocab_size} pieces: lower "
            "--vocab_size, or add text"
        )
    return tokenizer, total


def _train(
    cfg: PrepareConfig, chosen: list[tuple[Cleaned, np.ndarray]], total: int, folder: Path
) -> None:
    log.info("training %d pieces on %.1f M characters", cfg.vocab_size, total / 1e6)
    texts = (text for unit, numbers in chosen for text in unit.texts(numbers.tolist()))
    try:
        train_tokenizer(_watched(texts), folder, cfg.vocab_size)
    except DataError:
        check_stop()  # the trainer turns an interruption of its input into an error of its own
        raise


def _watched(texts: Iterator[str]) -> Iterator[str]:
    for text in texts:
        check_stop()
        yield text
