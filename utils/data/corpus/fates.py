"""Decides what becomes of the documents of a round: once, stored, and read again afterwards.

Exact and near-duplicates go, a mixture gets its shares, documents are split, and what is measured
is cut out. Documents of earlier rounds are settled: they take part, and keep what was decided.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from utils.config.prepare import PrepareConfig
from utils.data.corpus.corpus import Corpus, Fate
from utils.data.corpus.decontamination import ItemSet
from utils.data.corpus.duplicates import exact_families, mark, near_families
from utils.data.corpus.rejected import SAMPLES_PER_REASON, LossRecorder
from utils.data.corpus.screening import Screener
from utils.data.corpus.selection import balance, split
from utils.data.dedup.minhash import Families, banding
from utils.data.dedup.reference import near_duplicates_by_datasketch
from utils.data.work.cache import ResultCache
from utils.data.work.workers import AnyWorkers
from utils.files import fingerprint
from utils.log import progress
from utils.stage import check_stop

DECIDING = 1
"""Raised when the same documents get other fates."""
Recorders = defaultdict[int, LossRecorder]
"""A recorder for each source (its number)."""
SAMPLE_CHARACTERS = 500
"""Beginning of a dropped document that is written down."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decisions:
    """All that was decided up to a round; without values, before the first."""

    name: str | None = None
    """Name of the stored result; depends on all it was decided from."""
    losses: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """Documents that this round took out of each source, for `Rejected.merge`."""
    findings: Mapping[str, Any] | None = None
    """State of the findings of decontamination."""
    report: dict[str, Any] | None = None
    """Findings of decontamination in all rounds, for the cards; None: not looked for."""


def decide(
    cfg: PrepareConfig,
    corpus: Corpus,
    protected: Sequence[ItemSet],
    store: ResultCache,
    workers: AnyWorkers,
    earlier: Decisions,
) -> Decisions:
    """Give the new documents of `corpus` their fates; `earlier` is of the round before."""
    name = _name(cfg, corpus, protected, earlier)
    corpus.results.add(name)
    if not store.has(name):
        known = set(corpus.results)
        losses: Recorders = defaultdict(LossRecorder)
        screener = Screener(store, workers, losses)
        drop_duplicates(cfg, corpus, workers, losses)
        _balance(cfg, corpus, losses)
        findings = report = None
        if corpus.num_kept >= 2:
            split(corpus, cfg.train_ratio)
            if cfg.decontaminate:
                found = screener.decontaminate(corpus, protected, earlier.findings)
                findings, report = found.state(), found.as_dict()
        cuts = [unit.cuts for unit, _ in corpus.new_parts()]
        record = {
            "losses": {origin: one.record() for origin, one in losses.items()},
            "findings": findings,
            "report": report,
            "cuts": cuts,
            "made_of": sorted(corpus.results - known),
        }
        store.put(name, {"fates": corpus.fates[corpus.num_settled :]}, record)
    record = store.record(name)
    corpus.fates[corpus.num_settled :] = store.arrays(name)["fates"]
    for at, cuts in enumerate(record["cuts"], start=corpus.first_new_unit):
        corpus.units[at] = replace(corpus.units[at], cuts=cuts)
    corpus.results.update(record["made_of"])
    taken_out = {int(origin): one for origin, one in sorted(record["losses"].items())}
    return Decisions(name, taken_out, record["findings"], record["report"])


def _name(
    cfg: PrepareConfig,
    corpus: Corpus,
    protected: Sequence[ItemSet],
    earlier: Decisions,
) -> str:
    threshold = cfg.minhash_threshold if cfg.use_minhash else None
    mixture = [
        [source.weight, source.max_share, source.max_characters] for source in cfg.mix_datasets
    ]
    settings = [threshold, cfg.dedup_engine, mixture, cfg.train_ratio, cfg.decontaminate]
    items = [fingerprint([one.name, one.origin, *one.texts]) for one in protected]
    units = [[unit.name, unit.origin] for unit, _ in corpus.new_parts()]
    return f"fates-{fingerprint([DECIDING, settings, items, units, earlier.name])}"


def drop_duplicates(
    cfg: PrepareConfig, corpus: Corpus, workers: AnyWorkers, losses: Recorders
) -> None:
    """Give the documents that repeat an earlier one their fate, and write down the first."""
    _report(corpus, Fate.EXACT_DUPLICATE, losses, exact_families(corpus))
    if cfg.use_minhash:
        is_fast = cfg.dedup_engine == "rensa"
        near = _by_rensa(cfg, corpus, workers) if is_fast else _by_datasketch(cfg, corpus)
        _report(corpus, Fate.NEAR_DUPLICATE, losses, near)


def _by_rensa(cfg: PrepareConfig, corpus: Corpus, workers: AnyWorkers) -> Families:
    bands = banding(cfg.minhash_threshold)[0]
    with progress("near-duplicates", bands, "bands") as task:

        def watch(band: int) -> None:
            check_stop()
            task.advance(band - task.done)

        return near_families(corpus, bands, cfg.minhash_threshold, workers, watch)


def _by_datasketch(cfg: PrepareConfig, corpus: Corpus) -> Families:
    alive = corpus.fates != Fate.EXACT_DUPLICATE
    with progress("near-duplicates", int(alive.sum()), "documents") as task:

        def watch() -> None:
            check_stop()
            task.advance()

        texts = (
            (start + number, text)
            for (unit, fates), start in zip(corpus.parts(), corpus.starts.tolist(), strict=False)
            for numbers in [np.flatnonzero(fates != Fate.EXACT_DUPLICATE).tolist()]
            for number, text in zip(numbers, replace(unit, cuts="").texts(numbers), strict=True)
        )
        families = near_duplicates_by_datasketch(texts, len(corpus), cfg.minhash_threshold, watch)
    mark(corpus, families)
    return families


def _balance(cfg: PrepareConfig, corpus: Corpus, losses: Recorders) -> None:
    """Drop documents so that a mixture has its wanted shares of the characters.

    Raises:
        DataError: the caps of the sources leave no mixture.
    """
    if cfg.mix_datasets:
        if message := balance(corpus, cfg.sources):
            log.info("%s", message)
        _report(corpus, Fate.OVER_MIXTURE_WEIGHT, losses)


def _report(
    corpus: Corpus, fate: Fate, losses: Recorders, families: Families | None = None
) -> None:
    """Count the new documents of a fate, and write down the first of them with what they repeat."""
    reason = fate.name.lower()
    settled = corpus.num_settled
    first = np.flatnonzero(corpus.fates[settled:] == fate)[:SAMPLES_PER_REASON] + settled
    for number in first.tolist():
        row = corpus.row(number)
        detail = "more than its source's share"
        if families is not None:
            detail = f"of {corpus.row(families.root(number))['id']}"
        text = row["text"]
        sample = {"id": row["id"], "detail": detail, "characters": len(text)}
        losses[corpus.place(number)[0].origin].sample(
            reason, sample | {"text": text[:SAMPLE_CHARACTERS]}
        )
    for unit, fates in corpus.new_parts():
        if (fates == fate).any():
            lost = unit.column("characters")[fates == fate]
            losses[unit.origin].count(reason, len(lost), int(lost.sum()))
