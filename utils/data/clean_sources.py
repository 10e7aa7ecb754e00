"""Cleans every document of the sources, unit by unit, in worker processes."""

from collections.abc import Collection, Iterator
from itertools import tee

from utils.config.filters import load_profile
from utils.config.prepare import PrepareConfig
from utils.data.cleaning.batch import Rules
from utils.data.corpus.cleaned_unit import CleanedUnit, clean_unit
from utils.data.corpus.rejected import Rejected
from utils.data.corpus.sources import Source, fetch
from utils.data.corpus.work_units import WorkUnit, iter_units
from utils.data.work.cache import ResultCache
from utils.data.work.workers import AnyWorkers
from utils.log import progress


def clean_sources(
    cfg: PrepareConfig,
    sources: list[Source],
    files: Collection[str] | None,
    store: ResultCache,
    workers: AnyWorkers,
    rejected: Rejected,
) -> list[CleanedUnit]:
    """Clean the documents of local files with these names (None: of all sources); return the units.

    Raises:
        DataError: the hub cannot be reached or does not have a data set.
    """
    for source in sources:
        fetch(source, cfg.num_workers, cfg.download_workers)
    cleaned: list[CleanedUnit] = []
    kept = 0
    units, sent = tee(_units(cfg, sources, files))
    with progress("reading and cleaning", _megabytes(sources, files), "MB") as task:
        done = workers.map(clean_unit, ((str(store.folder), unit) for unit in sent))
        for name, unit in zip(done, units, strict=True):
            record = store.record(name)
            cleaned.append(CleanedUnit(store, name, unit.origin, record["documents"]))
            rejected.merge(unit.origin, record)
            kept += record["documents"]
            label = sources[unit.origin].label
            task.advance(unit.size / 1e6, f"{kept:,} documents kept from {label}")
    return cleaned


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
