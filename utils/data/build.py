"""Holds the place where a prepared folder is built: lock, scratch folder, stored results.

The result depends on the input and the settings only: not on the number of processes, the place or
the time. It is built beside its place and put there whole. What its steps made lies in a store
beside it, so that a run that was stopped goes on, and another one does only what differs.
Knows nothing about the steps: they are listed in scripts/01_prepare_data.py.
"""

import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from utils.config.prepare import PrepareConfig
from utils.data.corpus.corpus import Corpus, Fate
from utils.data.corpus.decontamination import ItemSet
from utils.data.corpus.rejected import Rejected
from utils.data.corpus.sources import Source
from utils.data.growth import Files, rounds_of, take_shards
from utils.data.identity import identity_of, is_prepared
from utils.data.tokens.shards import token_dtype
from utils.data.work.cache import ResultCache
from utils.data.work.ray_workers import RayWorkers
from utils.data.work.workers import Workers
from utils.disk import disk_errors
from utils.errors import DataError
from utils.files import atomic_folder, fingerprint, move_aside, recover_folder
from utils.lock import one_writer
from utils.tokenizers.tokenizer import Tokenizer, tokenizer_sha256

NEEDED_SHARE = 3.0
"""Disk space for the store and the result, as a multiple of the text (2.8 on docstrings)."""

log = logging.getLogger(__name__)


@dataclass
class Build:
    """A folder that is being built."""

    cfg: PrepareConfig
    folder: Path
    """Place of the result."""
    result: Path
    """Scratch folder; its content is moved to the place of the result in the end."""
    store: ResultCache
    identity: dict[str, Any]
    """Keys of the manifest that tell whether the same thing was prepared before."""
    rounds: list[Files]
    """Input files by rounds; empty for an input that cannot grow."""
    is_done: bool
    """Whether the folder holds this very result already."""
    _is_grown: bool = False
    _laps: list[str] = field(default_factory=list)
    _last: float = field(default_factory=time.monotonic)

    def workers(self) -> Workers | RayWorkers:
        """Return what the steps hand their work to."""
        if self.cfg.executor == "ray":
            return RayWorkers(self.cfg.ray_address)
        return Workers(self.cfg.num_workers)

    def lap(self, step: str) -> None:
        """Note the seconds of a step, for the log (never for a file)."""
        now = time.monotonic()
        self._laps.append(f"{step} {now - self._last:.1f}")
        self._last = now

    def take_shards(self) -> dict[str, dict[str, Any]] | None:
        """Take over the shards of earlier rounds and return their entries; None: there are none."""
        form = self.cfg.token_compression
        earlier = take_shards(self.folder, self.rounds[:-1], form, self.result)
        self._is_grown = earlier is not None
        return earlier

    def publish(self, tokenizer: Tokenizer, splits: dict[str, Any], corpus: Corpus) -> None:
        """Put the finished folder in its place; one that it did not grow out of is moved aside."""
        log.info("seconds: %s", ", ".join(self._laps))
        dtype = token_dtype(tokenizer.vocab_size)
        manifest = self.identity | tokenizer.summary | {"token_dtype": dtype, "splits": splits}
        with atomic_folder(self.folder, **manifest) as partial_folder:
            for path in sorted(self.result.iterdir()):
                path.rename(partial_folder / path.name)
            if self.folder.exists() and not self._is_grown:
                move_aside(self.folder)
        train, validation = splits["train"], splits["val"]
        log.info(
            "%s: %d documents, %.2f M tokens to train; %d documents, %.2f M tokens to validate",
            self.folder, train["documents"], train["tokens"] / 1e6,
            validation["documents"], validation["tokens"] / 1e6,
        )  # fmt: skip
        self.store.sweep(corpus.results if self.cfg.keep_cache else ())


@contextmanager
def open_build(
    cfg: PrepareConfig, sources: list[Source], protected: Sequence[ItemSet]
) -> Iterator[Build]:
    """Yield the build of a folder, which no other process writes meanwhile.

    Raises:
        DataError: the folder holds something else.
        LumiError: the disk is full, or another process writes there.
    """
    folder = cfg.folder.expanduser()
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
        build = Build(cfg, folder, work, store, identity, rounds, is_prepared(folder, identity))
        if build.is_done:
            log.info("%s is already prepared: same input, same settings", folder)
            yield build
        else:
            # Once more inside, to tell the free space before the scratch folder is gone.
            with _scratch(work), disk_errors(folder, needed_bytes):
                yield build
        _copy_tokenizer(cfg, folder)


def _needed_bytes(sources: list[Source], store: ResultCache) -> int | None:
    """Estimate what is still to be written; None for a stream, which does not tell its length."""
    if any(source.kind != "files" for source in sources):
        return None
    size = sum(part.size for source in sources for part in source.parts())
    return int(NEEDED_SHARE * size) - store.size()


@contextmanager
def _scratch(work: Path) -> Iterator[None]:
    """Make a folder that is removed in any case."""
    work.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(work, ignore_errors=True)


def check_enough(corpus: Corpus, rejected: Rejected) -> None:
    """Refuse a corpus that cannot give two splits, with everything that was dropped and why.

    Raises:
        DataError: fewer than two documents are left, or none to train on.
    """
    kept = corpus.num_kept
    if kept >= 2 and (kept := corpus.count(Fate.TRAIN)):
        return
    losses = rejected.total
    reasons = [f"{count} {reason}" for reason, count in sorted(losses.documents.items())]
    if rejected.first_bad is not None:
        bad = rejected.first_bad
        place = f"{bad['file']}:{bad['line']}" if bad["line"] else bad["file"]
        reasons.append(f"{losses.bad_lines} bad (first: {place}: {bad['reason']})")
    lost = f" ({', '.join(reasons)})" if reasons else ""
    left = f"{kept or 'no'} document left of {corpus.counts['documents_in'] + losses.bad_lines}"
    raise DataError(
        f"{left}{lost}: "
        "two are needed, one to train and one to validate; add text, lower --min_length or "
        "--max_length, or correct --text_key or --language"
    )


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
