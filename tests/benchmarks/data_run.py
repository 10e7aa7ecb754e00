"""One run of data preparation in a process of its own, measured; prints one JSON line.

python -m tests.benchmarks.data_run dedup|reference|full CORPUS WORK WORKERS

`reference` is the plain algorithm: datasketch, one document after the other, MinHashLSH.
"""

import json
import re
import resource
import shutil
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from tests.stage01 import prepare
from utils.config.prepare import PrepareConfig
from utils.data.clean_sources import clean_sources, rules_of
from utils.data.cleaning.batch import Rules, refine
from utils.data.corpus.cleaned_unit import CleanedUnit
from utils.data.corpus.corpus import Corpus, Fate
from utils.data.corpus.fates import drop_duplicates
from utils.data.corpus.rejected import LossRecorder, Rejected
from utils.data.corpus.sources import find_source
from utils.data.tokens.shards import iter_documents
from utils.data.work.cache import ResultCache
from utils.data.work.workers import Workers
from utils.reading.documents import Document
from utils.tokenizers.transformers_files import load_hf_tokenizer


def settings(corpus: Path, workers: int, **more: object) -> PrepareConfig:
    """Return settings that keep every document whole."""
    return PrepareConfig.build({
        "input_path": str(corpus), "num_workers": workers, "max_length": 1_000_000, **more,
    })  # fmt: skip


def deduplicate(
    corpus: Path, work: Path, pool: Workers, engine: str
) -> tuple[Corpus, dict[str, float]]:
    """Write the documents that are no repetitions as JSON lines; return all, and the seconds."""
    cfg = settings(corpus, pool.count, language=None, min_length=1, dedup_engine=engine)
    folder = _empty(work / "dedup")
    rejected = Rejected(folder)
    for _ in pool.map(warm_up, [rules_of(cfg)] * 4 * pool.count):
        pass
    watch = Watch()
    sources = [find_source(one) for one in cfg.sources]
    units = clean_sources(cfg, sources, None, ResultCache(folder / "store"), pool, rejected)
    found = Corpus(units)
    drop_duplicates(cfg, found, pool, defaultdict(LossRecorder))
    parts = (
        (unit, np.flatnonzero(fates == Fate.TRAIN), folder / f"shard_{number:05d}.jsonl")
        for number, (unit, fates) in enumerate(found.parts())
    )
    for _ in pool.map(write_shard, parts):
        pass
    rejected.close()
    return found, watch.seconds()


def warm_up(rules: Rules) -> None:
    """Import what cleaning imports, and leave the next task to another process."""
    refine(([Document("0", "five words are one gram", "warm-up")], rules))
    time.sleep(0.2)


def dropped_ids(found: Corpus) -> list[int]:
    """Return the ids of the documents that repeat others."""
    dropped: list[int] = []
    for unit, fates in found.parts():
        lost = unit.lines(np.flatnonzero(fates != Fate.TRAIN).tolist())
        dropped += [int(json.loads(line)["id"]) for line in lost]
    return dropped


def write_shard(part: tuple[CleanedUnit, np.ndarray, Path]) -> None:
    """Write the lines of documents of a unit."""
    unit, numbers, path = part
    with path.open("wb") as file:
        file.writelines(unit.lines(numbers.tolist()))


def whole(corpus: Path, work: Path, workers: int, tokenizer: Path) -> Path:
    """Prepare the corpus with a tokenizer that is there already."""
    return prepare(
        settings(corpus, workers, output_dir=_empty(work / "full") / "out", reuse_tokenizer=True,
                 tokenizer_path=tokenizer)
    )  # fmt: skip


def _tokenizer(corpus: Path, work: Path) -> Path:
    """Train a tokenizer on the first documents, once."""
    folder = work / "tokenizer"
    if not folder.exists():
        cfg = settings(
            corpus,
            1,
            output_dir=_empty(work / "first") / "out",
            max_samples=3000,
            use_minhash=False,
        )
        shutil.copytree(prepare(cfg.model_copy(update={"vocab_size": 8192})) / "tokenizer", folder)
    return folder


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


class Watch:
    """Wall seconds, and CPU seconds of this process, its threads and its finished children."""

    def __init__(self) -> None:
        self._cpu_s, self._wall_s = self._now()

    def seconds(self) -> dict[str, float]:
        """Return the seconds since it was made."""
        cpu_s, wall_s = self._now()
        return {"cpu_s": cpu_s - self._cpu_s, "wall_s": wall_s - self._wall_s}

    @staticmethod
    def _now() -> tuple[float, float]:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in used), time.monotonic()


def _rss_mb() -> float:
    """Return the peak memory of this process (on Linux not that of its parent)."""
    status = Path("/proc/self/status")
    if status.exists():
        return round(int(re.findall(r"VmHWM:\s+(\d+)", status.read_text())[0]) / 1024, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1)


def main() -> None:
    """Run, and print seconds, memory and what was dropped."""
    what, corpus, work, workers = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    tokenizer = _tokenizer(corpus, work) if what == "full" else None
    if tokenizer is not None:
        load_hf_tokenizer(tokenizer)  # imports what preparation imports
    imports_mb = _rss_mb()
    if tokenizer is None:
        engine = "rensa" if what == "dedup" else "datasketch"
        with Workers(int(workers)) as pool:
            found, measured = deduplicate(corpus, work, pool, engine)
        rss_mb, more = _rss_mb(), {"dropped": dropped_ids(found)}
    else:
        watch = Watch()
        folder = whole(corpus, work, int(workers), tokenizer)
        measured, rss_mb = watch.seconds(), _rss_mb()
        more = {"documents": sum(1 for _ in iter_documents(folder, "train"))}
    line = measured | {"rss_mb": rss_mb, "imports_mb": imports_mb} | more
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
