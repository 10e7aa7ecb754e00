"""Stage 01: read and clean, deduplicate, balance, split, tokenize, write, describe.

The result depends on the input and the settings only: not on the number of processes, the place or
the time. It is built beside its place and put there whole. What its steps made lies in a store
beside it, so that a run that was stopped goes on, and another one does only what differs.
"""

import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from utils.config.prepare import PrepareConfig
from utils.data.cleaning.language import check_language
from utils.data.corpus.corpus import Corpus, Fate
from utils.data.corpus.decontamination import ItemSet
from utils.data.corpus.fates import Decisions, decide
from utils.data.corpus.rejected import Rejected
from utils.data.description import describe
from utils.data.encoding import write_shards
from utils.data.growth import Files, rounds_of, take_shards, write_rounds
from utils.data.identity import identity_of, is_prepared
from utils.data.sources import Source, find_source
from utils.data.statistics import Outcome
from utils.data.steps import clean, make_tokenizer
from utils.data.tokens.shards import token_dtype
from utils.data.work.cache import ResultCache
from utils.data.work.ray_workers import RayWorkers
from utils.data.work.workers import AnyWorkers, Workers
from utils.disk import disk_errors
from utils.errors import DataError
from utils.files import (
    atomic_folder,
    fingerprint,
    move_aside,
    recover_folder,
)
from utils.lock import one_writer
from utils.tokenizers.tokenizer import tokenizer_sha256

NEEDED_SHARE = 3.0
"""Disk space for the store and the result, as a multiple of the text (2.8 on docstrings)."""

log = logging.getLogger(__name__)


def prepare(cfg: PrepareConfig, find_protected: Callable[[], Sequence[ItemSet]] = tuple) -> Path:
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
    store = ResultCache(folder.absolute().with_name(f".cache-{folder.name}"))

    needed_bytes = partial(_needed_bytes, sources, store)
    work = folder.with_name(f".work-{folder.name}")
    with disk_errors(folder, needed_bytes), one_writer(folder):
        recover_folder(folder)
        shutil.rmtree(work, ignore_errors=True)  # what a kill left
        store.tidy()
        rounds = rounds_of(cfg, sources, folder, identity)
        identity["input_hash"] = fingerprint([identity["input_hash"], len(rounds), rounds])
        if is_prepared(folder, identity):
            log.info("%s is already prepared: same input, same settings", folder)
        else:
            # Once more inside, to tell the free space before the scratch folder is gone.
            with _scratch(work) as result, disk_errors(folder, needed_bytes):
                build = _Build(cfg, sources, rounds, protected, store, result)
                manifest = identity | build.run(folder)
                _publish(result, folder, manifest, is_grown=build.has_taken_shards)
            store.sweep(build.used if cfg.keep_cache else ())
        _copy_tokenizer(cfg, folder)
    return folder


def _needed_bytes(sources: list[Source], store: ResultCache) -> int | None:
    """Estimate what is still to be written; None for a stream, which does not tell its length."""
    if any(source.kind != "files" for source in sources):
        return None
    size = sum(part.size for source in sources for part in source.parts())
    return int(NEEDED_SHARE * size) - store.size()


@contextmanager
def _scratch(work: Path) -> Iterator[Path]:
    """Make a folder that is removed in any case."""
    work.mkdir(parents=True)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@dataclass
class _Build:
    """Everything but the manifest, written into the folder `result`."""

    cfg: PrepareConfig
    sources: list[Source]
    rounds: list[Files]
    protected: Sequence[ItemSet]
    store: ResultCache
    result: Path
    used: set[str] = field(default_factory=set)
    """Names of the stored results it was made of."""
    has_taken_shards: bool = False

    def run(self, folder: Path) -> dict[str, Any]:
        """Return the manifest's keys; the shards of earlier rounds are taken from `folder`."""
        cfg, clock = self.cfg, _Clock()
        rejected = Rejected(self.result)
        with _workers(cfg) as workers:
            corpus, counts, report = self._decided(workers, rejected, clock)
            rejected.close()
            tokenizer, trained_on = make_tokenizer(
                cfg, corpus, self.store, self.result / "tokenizer"
            )
            clock.lap("tokenizer")
            form = cfg.token_compression
            earlier = take_shards(folder, self.rounds[:-1], form, self.result)
            self.has_taken_shards = earlier is not None
            splits = write_shards(corpus, workers, self.result, cfg.shard_tokens, form, earlier)
            clock.lap("encode and write")
        assert sum(split["documents"] for split in splits.values()) == corpus.num_kept
        self.used = corpus.results
        numbers_of_files = [len(files) for files in self.rounds]
        outcome = Outcome(
            cfg, self.sources, counts, rejected, corpus, splits, tokenizer, trained_on, report,
            numbers_of_files,
        )  # fmt: skip
        describe(outcome, self.result)
        write_rounds(self.result, self.rounds)
        log.info("seconds: %s", clock)
        dtype = token_dtype(tokenizer.vocab_size)
        return {**tokenizer.summary, "token_dtype": dtype, "splits": splits}

    def _decided(
        self, workers: AnyWorkers, rejected: Rejected, clock: "_Clock"
    ) -> tuple[Corpus, Counter[str], dict[str, Any] | None]:
        """Clean the input and decide what becomes of it, round by round."""
        corpus, counts = Corpus(), Counter[str]()
        decisions: Decisions | None = None
        for files in self.rounds or [None]:
            units, counted = clean(self.cfg, self.sources, files, self.store, workers, rejected)
            clock.lap("read and clean")
            corpus.grow(units)
            counts.update(counted)
            decisions = decide(self.cfg, corpus, self.protected, self.store, workers, decisions)
            clock.lap("decide")
            for origin, losses in decisions.losses.items():
                rejected.merge(origin, losses)
        _check_enough(corpus.num_kept, counts, rejected)
        _check_enough(corpus.count(Fate.TRAIN), counts, rejected, least=1)
        return corpus, counts, decisions.report if decisions else None


def _workers(cfg: PrepareConfig) -> Workers | RayWorkers:
    return RayWorkers(cfg.ray_address) if cfg.executor == "ray" else Workers(cfg.num_workers)


def _check_enough(kept: int, counts: dict[str, int], rejected: Rejected, least: int = 2) -> None:
    """Refuse a corpus that cannot give two splits, with everything that was dropped and why."""
    if kept >= least:
        return
    losses = rejected.total
    reasons = [f"{count} {reason}" for reason, count in sorted(losses.documents.items())]
    if rejected.first_bad is not None:
        bad = rejected.first_bad
        place = f"{bad['file']}:{bad['line']}" if bad["line"] else bad["file"]
        reasons.append(f"{losses.bad_lines} bad (first: {place}: {bad['reason']})")
    lost = f" ({', '.join(reasons)})" if reasons else ""
    left = f"{kept or 'no'} document left of {counts['documents_in'] + losses.bad_lines}"
    raise DataError(
        f"{left}{lost}: "
        "two are needed, one to train and one to validate; add text, lower --min_length or "
        "--max_length, or correct --text_key or --language"
    )


def _publish(result: Path, folder: Path, manifest: dict[str, Any], *, is_grown: bool) -> None:
    """Put the finished folder in its place; one that it did not grow out of is moved aside."""
    with atomic_folder(folder, **manifest) as partial:
        for path in sorted(result.iterdir()):
            path.rename(partial / path.name)
        if folder.exists() and not is_grown:
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
        with suppress(DataError):
            if tokenizer_sha256(target) == tokenizer_sha256(folder / "tokenizer"):
                return
        move_aside(target)
    with disk_errors(target):
        shutil.copytree(folder / "tokenizer", target, dirs_exist_ok=True)


@dataclass
class _Clock:
    """Seconds of each step, for the log (never for a file: files do not depend on time)."""

    text: str = ""
    last: float = field(default_factory=time.monotonic)

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.text += f"{', ' if self.text else ''}{name} {now - self.last:.1f}"
        self.last = now

    def __str__(self) -> str:
        return self.text
