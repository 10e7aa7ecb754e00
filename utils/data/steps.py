"""The steps of preparation between the sources and the shards, in the order of their use.

Each takes what the earlier ones made and gives the next what it needs; none knows the whole.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.config.prepare import PrepareConfig
from utils.data.dedup import exact_duplicates, near_duplicates
from utils.data.dedup_reference import near_duplicates_by_datasketch
from utils.data.decontamination import (
    Findings,
    ItemSet,
    Protected,
    Screened,
    screen_lines,
)
from utils.data.filters import Refined, Rules, refine
from utils.data.records import BadLine, Document
from utils.data.rejected import Rejected
from utils.data.selection import balance_mixture, sample_mask
from utils.data.shards import Encoded, encode_lines
from utils.data.shingling import shingles
from utils.data.sources import Source, fetch, iter_source
from utils.data.spool import Spool
from utils.data.tokenizer import Tokenizer, save_hf_tokenizer, train_tokenizer
from utils.data.workers import Workers, check_stop
from utils.errors import DataError
from utils.log import progress

BATCH_CHARACTERS = 400_000
"""About this much text goes to a worker at a time."""
TOKENIZER_CHARACTERS = 20_000_000
"""Text the tokenizer is trained on at most: twice as much makes tokens 0.1 % longer."""

log = logging.getLogger(__name__)


def rules_of(cfg: PrepareConfig) -> Rules:
    """Return the part of the settings that cleaning needs."""
    return Rules(
        cfg.min_length,
        cfg.max_length,
        cfg.language,
        cfg.language_detector,
        cfg.language_threshold,
        cfg.minhash_threshold if cfg.use_minhash and cfg.dedup_engine == "rensa" else None,
    )


class Reading:
    """Reads every source through the workers into the spool."""

    def __init__(self, cfg: PrepareConfig, workers: Workers, rejected: Rejected) -> None:
        self.counts: Counter[str] = Counter()
        self._cfg = cfg
        self._workers = workers
        self._rejected = rejected

    def read(self, sources: list[Source], spool: Spool) -> None:
        """Clean every document of the sources, in order, into `spool`."""
        for source in sources:
            fetch(source, self._cfg.num_workers)
        with progress("reading and cleaning") as task:
            for origin, source in enumerate(sources):
                batches = self._batches(source)
                for refined in self._workers.map(refine, batches):
                    self._take(refined)
                    spool.add(refined, origin)
                    task.advance(
                        refined.counts["documents_in"], f"{len(spool):,} kept from {source.label}"
                    )
        spool.finish()

    def _batches(self, source: Source) -> Iterator[tuple[list[Document], Rules]]:
        rules = rules_of(self._cfg)
        batch: list[Document] = []
        characters = 0
        for record in iter_source(source, self._cfg.text_key, self._cfg.num_workers):
            if isinstance(record, BadLine):
                self._rejected.bad(record)
            elif isinstance(record, Document):
                batch.append(record)
                characters += len(record.text) + 100
            if characters >= BATCH_CHARACTERS:
                yield batch, rules
                batch, characters = [], 0
        if batch:
            yield batch, rules

    def _take(self, refined: Refined) -> None:
        self.counts.update(refined.counts)  # `+=` would lose negative counts
        for rejection in refined.rejections:
            self._rejected.drop(rejection.reason, rejection.characters, rejection.record())


def drop_duplicates(cfg: PrepareConfig, spool: Spool, rejected: Rejected) -> np.ndarray:
    """Return which documents of the spool are no repetition of an earlier one (bool)."""
    digests = np.ascontiguousarray(spool.digests).view("V16").reshape(-1)
    first = exact_duplicates(digests)
    alive = first == np.arange(len(first))
    for number in np.flatnonzero(~alive).tolist():
        _drop(spool, number, rejected, "exact_duplicate", int(first[number]))
    if not cfg.use_minhash:
        return alive
    find = _by_rensa if cfg.dedup_engine == "rensa" else _by_datasketch
    for number, other in find(spool, alive, cfg.minhash_threshold).items():
        alive[number] = False
        _drop(spool, number, rejected, "near_duplicate", other)
    return alive


def _by_rensa(spool: Spool, alive: np.ndarray, threshold: float) -> dict[int, int]:
    with progress("near-duplicates", total=spool.keys.shape[1]) as task:

        def watch(band: int) -> None:
            check_stop()
            task.advance(band - task.done)

        return near_duplicates(
            spool.keys, alive, threshold, lambda number: shingles(spool.row(number)["text"]), watch
        )


def _by_datasketch(spool: Spool, alive: np.ndarray, threshold: float) -> dict[int, int]:
    numbers = np.flatnonzero(alive).tolist()
    with progress("near-duplicates", total=len(numbers)) as task:

        def watch() -> None:
            check_stop()
            task.advance()

        texts = zip(numbers, spool.texts(numbers), strict=True)
        return near_duplicates_by_datasketch(texts, len(alive), threshold, watch)


def _drop(spool: Spool, number: int, rejected: Rejected, reason: str, other: int) -> None:
    row = spool.row(number)
    detail = f"of {spool.row(other)['id']}"
    _reject(row, rejected, reason, detail)


def _reject(row: dict[str, str], rejected: Rejected, reason: str, detail: str) -> None:
    text = row["text"]
    record = {"id": row["id"], "detail": detail, "characters": len(text), "text": text[:500]}
    rejected.drop(reason, len(text), record)


def balance(
    spool: Spool, alive: np.ndarray, weights: list[float], rejected: Rejected
) -> np.ndarray:
    """Return which documents stay so that a mixture has its wanted shares of the characters."""
    if len(weights) < 2:
        return alive
    stays = balance_mixture(alive, spool.origins, spool.characters, spool.digests[:, 0], weights)
    for number in np.flatnonzero(alive & ~stays).tolist():
        _reject(spool.row(number), rejected, "over_mixture_weight", "more than its source's share")
    return stays


def decontaminate(
    sets: Sequence[ItemSet],
    spool: Spool,
    parts: dict[str, np.ndarray],
    folder: Path,
    workers: Workers,
    rejected: Rejected,
) -> dict[str, Any]:
    """Cut protected items out of the training documents, and return what was found of each set.

    The validation documents are a set of their own. Documents of which nothing is left leave
    `parts`. Hashes go into a file in `folder`, for the workers.
    """
    own = ItemSet("validation split", "this data set", list(spool.texts(parts["val"].tolist())))
    every = [*sets, own]
    report = Findings(every)
    path = folder / "protected.safetensors"
    Protected.of([text for one in every for text in one.texts]).save(path)
    gone = []
    with progress("decontaminating", total=len(parts["train"])) as task:
        batches = (
            (str(path), numbers, lines) for numbers, lines in line_batches(spool, parts["train"])
        )
        for count, screened in workers.map(screen_lines, batches):
            task.advance(count)
            for number, document in screened:
                if not _cut(spool, number, document, report, rejected):
                    gone.append(number)
    parts["train"] = np.setdiff1d(parts["train"], gone, assume_unique=True)
    return report.as_dict()


def _cut(
    spool: Spool, number: int, document: Screened, report: Findings, rejected: Rejected
) -> bool:
    """Replace a document by what is left of it; return whether anything is."""
    row = spool.row(number)
    rejected.mark("overlapping", report.records(row["id"], document.marked))
    if not document.cut:
        return True
    records = report.records(row["id"], document.cut)
    if not document.text.strip():
        rejected.drop("contaminated", len(row["text"]), records[0])
        return False
    rejected.cut("contaminated", len(row["text"]) - len(document.text), records)
    spool.replace(number, document.text)
    return True


def make_tokenizer(
    cfg: PrepareConfig, spool: Spool, training: np.ndarray, folder: Path
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
    ranks, characters = spool.digests[training, 1], spool.characters[training]
    chosen = sample_mask(ranks, characters, TOKENIZER_CHARACTERS)
    total = int(characters[chosen].sum())
    log.info("training %d pieces on %.1f M characters", cfg.vocab_size, total / 1e6)
    texts = spool.texts(training[chosen].tolist())
    try:
        tokenizer = train_tokenizer(_watched(texts), folder, cfg.vocab_size)
    except DataError:
        check_stop()  # the trainer turns an interruption of its input into an error of its own
        raise
    if tokenizer.vocab_size != cfg.vocab_size:
        raise DataError(
            f"this corpus gives only {tokenizer.vocab_size} of {cfg.vocab_size} pieces: lower "
            "--vocab_size, or add text"
        )
    return tokenizer, total


def _watched(texts: Iterator[str]) -> Iterator[str]:
    for text in texts:
        check_stop()
        yield text


def encoded(
    spool: Spool, numbers: np.ndarray, tokenizer_dir: Path, workers: Workers
) -> Iterator[Encoded]:
    """Yield batches of documents as ids, in order."""

    batches = ((str(tokenizer_dir), lines) for _, lines in line_batches(spool, numbers))
    with progress("encoding", total=len(numbers)) as task:
        for batch in workers.map(encode_lines, batches):
            task.advance(len(batch.lines))
            yield batch


def line_batches(spool: Spool, numbers: np.ndarray) -> Iterator[tuple[list[int], list[bytes]]]:
    """Yield numbers and stored lines of some documents, about BATCH_CHARACTERS at a time."""
    taken: list[int] = []
    lines: list[bytes] = []
    size = 0
    for number in numbers.tolist():
        taken.append(number)
        lines.append(spool.line(number))
        size += len(lines[-1])
        if size >= BATCH_CHARACTERS:
            yield taken, lines
            taken, lines, size = [], [], 0
    if lines:
        yield taken, lines
