"""Turns the kept documents of a corpus into ids, unit by unit, and those into shards."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import tee
from pathlib import Path
from typing import Any

import numpy as np

from utils.config.prepare import PrepareConfig
from utils.data.corpus.cleaned_unit import CleanedUnit
from utils.data.corpus.corpus import KEPT, SPLITS, Corpus
from utils.data.tokens.shards import Encoded, SplitWriter
from utils.data.tokens.word_encoder import WordEncoder
from utils.data.work.cache import array_digest
from utils.data.work.workers import AnyWorkers
from utils.files import fingerprint
from utils.log import progress
from utils.tokenizers.load import load_tokenizer

ENCODING = 2
"""Raised when the same documents give other ids."""

COLUMNS = ("ids", "lengths", "text_bytes")

Task = tuple[CleanedUnit, dict[str, np.ndarray], tuple[str, str], str]
"""Unit, the documents of each split, folder and sha256 of the tokenizer, name of the result."""


def write_shards(
    cfg: PrepareConfig,
    corpus: Corpus,
    workers: AnyWorkers,
    result: Path,
    earlier: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Write the shards of all splits into `result`, which has a tokenizer.

    Each round of the corpus begins new ones. `earlier` holds the entries of all but the newest
    round, whose shards are in the folder already. Returns the entry of each split for the manifest.
    """
    first = corpus.first_new_unit if earlier else 0
    for split, entry in (earlier or {}).items():  # what grows has a single source
        corpus.tokens[corpus.units[0].origin, split] += entry["tokens"]
    tasks, again = tee(_tasks(corpus, result / "tokenizer", first))
    form = cfg.shard_tokens, cfg.token_compression
    writers = {
        split: SplitWriter(result, split, *form, (earlier or {}).get(split)) for split in SPLITS
    }
    total = sum(int(np.count_nonzero(fates <= KEPT)) for _, fates in corpus.parts(first))
    with progress("encoding", total, "documents") as bar, writers["train"], writers["val"]:
        done = workers.map(encode_unit, tasks)
        numbered = enumerate(zip(done, again, strict=True), start=first)
        for at, (name, (unit, parts, _, _)) in numbered:
            corpus.results.add(name)
            arrays = unit.store.arrays(name)
            for split, numbers in parts.items():
                if at in corpus.borders:
                    writers[split].end_shard()
                columns = (arrays[f"{split}_{column}"] for column in COLUMNS)
                writers[split].write(Encoded(list(unit.lines(numbers.tolist())), *columns))
                corpus.tokens[unit.origin, split] += int(arrays[f"{split}_lengths"].sum())
                bar.advance(len(numbers))
    splits = {split: writer.summary for split, writer in writers.items()}
    assert sum(split["documents"] for split in splits.values()) == corpus.num_kept
    return splits


def _tasks(corpus: Corpus, tokenizer_dir: Path, first: int) -> Iterator[Task]:
    sha256 = load_tokenizer(tokenizer_dir).sha256
    for unit, fates in corpus.parts(first):
        parts = {split: np.flatnonzero(fates == fate) for split, fate in SPLITS.items()}
        content = [ENCODING, unit.name, unit.cuts, sha256, array_digest(fates)]
        yield unit, parts, (str(tokenizer_dir.absolute()), sha256), f"ids-{fingerprint(content)}"


def encode_unit(task: Task) -> str:
    """Encode documents of a unit, unless that was done, and return the name of the result.

    A pure function (for a worker process).
    """
    unit, parts, tokenizer, name = task
    if not unit.store.has(name):
        encoder = _encoder(*tokenizer)
        arrays = {
            f"{split}_{column}": array
            for split, numbers in parts.items()
            for column, array in zip(COLUMNS, _encode(unit, numbers, encoder), strict=True)
        }
        unit.store.put(name, arrays, None)
    return name


def _encode(
    unit: CleanedUnit, numbers: np.ndarray, encoder: WordEncoder
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ids, tokens of each document and bytes of its text."""
    texts = list(unit.texts(numbers.tolist()))
    sizes = (len(text) if text.isascii() else len(text.encode("utf-8")) for text in texts)
    text_bytes = np.fromiter(sizes, np.uint32, len(texts))
    return *encoder.encode(texts), text_bytes


@lru_cache(maxsize=2)
def _encoder(folder: str, sha256: str) -> WordEncoder:
    """Return the encoder of the tokenizer that lies in `folder` now; one place sees several."""
    return WordEncoder(load_tokenizer(Path(folder)))
