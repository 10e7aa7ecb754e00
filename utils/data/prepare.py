"""Stage 01: read and clean, deduplicate, balance, split, tokenize, write, describe.

The result depends on the input and the settings only: not on the number of processes, the place or
the time. It is built beside its place and put there whole. What its steps made lies in a store
beside it, so that a run that was stopped goes on, and another one does only what differs.
"""

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from utils.config.prepare import PrepareConfig
from utils.data.accounts import Outcome, statistics
from utils.data.cards import data_card, tokenizer_card
from utils.data.corpus import Fate
from utils.data.decontamination import ItemSet
from utils.data.encoding import write_shards
from utils.data.identity import identity_of, is_prepared, settings_without_places
from utils.data.language import check_language
from utils.data.ray_workers import RayWorkers
from utils.data.rejected import Rejected
from utils.data.screening import decontaminate
from utils.data.selection import split
from utils.data.shards import read_dataset, token_dtype
from utils.data.sources import Source, find_source
from utils.data.steps import balance_sources, clean, drop_duplicates, make_tokenizer
from utils.data.store import Store
from utils.data.tokenizer import Tokenizer
from utils.data.workers import Workers
from utils.disk import disk_errors
from utils.errors import DataError
from utils.files import (
    MANIFEST,
    atomic_folder,
    fingerprint,
    move_aside,
    one_writer,
    recover_folder,
    to_json,
)

NEEDED_SHARE = 3.0
"""Disk space for the store and the result, as a multiple of the text (2.8 on docstrings)."""

log = logging.getLogger(__name__)


def prepare(
    cfg: PrepareConfig, find_protected: Callable[[], Sequence[ItemSet]] = tuple
) -> Path:
    """Prepare the corpus that `cfg` describes and return its folder; it may be there already.

    `find_protected` returns texts that are cut out of the training documents; it is asked where
    `cfg.decontaminate` is on, once the input is found.

    Raises:
        DataError: nothing usable in the input, or the folder holds something else.
        LumiError: the disk is full, another process writes there, a worker was killed.
        Interrupted: a stop was requested; what was made so far stays in the store.
    """
    folder = cfg.folder.expanduser()
    if cfg.language is not None:
        check_language(cfg.language, cfg.language_detector)
    sources = [find_source(setting, without=folder) for setting in cfg.sources]
    protected = find_protected() if cfg.decontaminate else ()
    identity = identity_of(cfg, sources, protected)
    store = Store(folder.absolute().with_name(f".cache-{folder.name}"))

    needed_bytes = partial(_needed_bytes, sources, store)
    work = folder.with_name(f".work-{folder.name}")
    with disk_errors(folder, needed_bytes), one_writer(folder):
        recover_folder(folder)
        shutil.rmtree(work, ignore_errors=True)  # what a kill left
        store.tidy()
        if is_prepared(folder, identity):
            log.info("%s is already prepared: same input, same settings", folder)
        else:
            # Once more inside, to tell the free space before the scratch folder is gone.
            with _scratch(work) as result, disk_errors(folder, needed_bytes):
                summary, used = _build(cfg, sources, store, result, protected)
                _publish(cfg, result, folder, identity | summary)
            store.sweep(used if cfg.keep_cache else ())
        _copy_tokenizer(cfg, folder)
    return folder


def _needed_bytes(sources: list[Source], store: Store) -> int | None:
    """Estimate what is still to be written; None for a stream, which does not tell its length."""
    if any(source.kind != "files" for source in sources):
        return None
    size = sum(piece.size for source in sources for piece in source.pieces())
    return int(NEEDED_SHARE * size) - store.size()


@contextmanager
def _scratch(work: Path) -> Iterator[Path]:
    """Make a folder that is removed in any case."""
    work.mkdir(parents=True)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _build(
    cfg: PrepareConfig,
    sources: list[Source],
    store: Store,
    result: Path,
    protected: Sequence[ItemSet],
) -> tuple[dict[str, Any], set[str]]:
    """Write everything but the manifest into `result`.

    Returns the manifest's other keys and the names of the stored results it was made of.
    """
    clock = _Clock()
    rejected = Rejected(result)
    with _workers(cfg) as workers:
        corpus, counts = clean(cfg, sources, store, workers, rejected)
        clock.lap("read and clean")
        drop_duplicates(cfg, corpus, workers, rejected)
        clock.lap("deduplicate")
        balance_sources(corpus, [source.weight for source in cfg.sources], rejected)
        _check_enough(corpus.num_kept, counts, rejected)
        split(corpus, cfg.train_ratio)
        found = None
        if cfg.decontaminate:
            found = decontaminate(corpus, protected, store, workers, rejected)
            _check_enough(corpus.count(Fate.TRAIN), counts, rejected, least=1)
            clock.lap("decontaminate")
        rejected.close()
        tokenizer, trained_on = make_tokenizer(cfg, corpus, store, result / "tokenizer")
        clock.lap("tokenizer")
        splits = write_shards(
            corpus, result / "tokenizer", store, workers, result, cfg.shard_tokens
        )
        clock.lap("encode and write")
    outcome = Outcome(
        cfg, sources, counts, rejected, corpus, splits, tokenizer, trained_on, found
    )  # fmt: skip
    _describe(outcome, result)
    log.info("seconds: %s", clock)
    summary = {
        "tokenizer_sha256": tokenizer.sha256,
        "vocab_size": tokenizer.vocab_size,
        "token_dtype": token_dtype(tokenizer.vocab_size),
        "splits": splits,
    }
    return summary, corpus.results


def _workers(cfg: PrepareConfig) -> Workers | RayWorkers:
    return RayWorkers(cfg.ray_address) if cfg.executor == "ray" else Workers(cfg.num_workers)


def _check_enough(
    kept: int, counts: dict[str, int], rejected: Rejected, least: int = 2
) -> None:
    """Refuse a corpus that cannot give two splits, with everything that was dropped and why."""
    if kept >= least:
        return
    reasons = [f"{count} {reason}" for reason, count in sorted(rejected.documents.items())]
    if rejected.first_bad is not None:
        bad = rejected.first_bad
        place = f"{bad['file']}:{bad['line']}" if bad["line"] else bad["file"]
        reasons.append(f"{rejected.bad_lines} bad (first: {place}: {bad['reason']})")
    lost = f" ({', '.join(reasons)})" if reasons else ""
    left = f"{kept or 'no'} document left of {counts['documents_in'] + rejected.bad_lines}"
    raise DataError(
        f"{left}{lost}: "
        "two are needed, one to train and one to validate; add text, lower --min_length or "
        "--max_length, or correct --text_key or --language"
    )


def _describe(outcome: Outcome, result: Path) -> None:
    """Write stats.json, DATA_CARD.md, TOKENIZER_CARD.md and settings.json."""
    stats = statistics(outcome)
    (result / "stats.json").write_text(to_json(stats), encoding="utf-8")
    (result / "DATA_CARD.md").write_text(data_card(stats), encoding="utf-8")
    (result / "tokenizer" / "TOKENIZER_CARD.md").write_text(tokenizer_card(stats), encoding="utf-8")
    (result / "settings.json").write_text(to_json(settings_without_places(outcome.cfg)), encoding="utf-8")


def _publish(cfg: PrepareConfig, result: Path, folder: Path, manifest: dict[str, Any]) -> None:
    """Put the finished folder in its place; what was there is moved aside first."""
    with atomic_folder(folder, **manifest) as partial:
        for path in sorted(result.iterdir()):
            path.rename(partial / path.name)
        if folder.exists():
            move_aside(folder)
    train, validation = manifest["splits"]["train"], manifest["splits"]["val"]
    log.info(
        "%s: %d documents, %.2f M tokens to train; %d documents, %.2f M tokens to validate",
        folder, train["documents"], train["tokens"] / 1e6,
        validation["documents"], validation["tokens"] / 1e6,
    )  # fmt: skip


def _copy_tokenizer(cfg: PrepareConfig, folder: Path) -> None:
    """Put the extra copy of a new tokenizer where --tokenizer_path asks for it."""
    if cfg.tokenizer_path is None or cfg.reuse_tokenizer:
        return
    target = cfg.tokenizer_path.expanduser()
    if target.resolve() == (folder / "tokenizer").resolve():
        return
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        if (target / "tokenizer.model").is_file() and (
            Tokenizer.load(target).sha256 == Tokenizer.load(folder / "tokenizer").sha256
        ):
            return
        move_aside(target)
    with disk_errors(target):
        shutil.copytree(folder / "tokenizer", target, dirs_exist_ok=True)


@dataclass
class _Clock:
    """Seconds of each step, for the log (never for a file: files do not depend on time)."""

    text: str = ""
    last: float = 0.0

    def __post_init__(self) -> None:
        self.last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.text += f"{', ' if self.text else ''}{name} {now - self.last:.1f}"
        self.last = now

    def __str__(self) -> str:
        return self.text
