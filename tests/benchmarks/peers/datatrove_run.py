"""MinHash deduplication by datatrove with its default settings, one task at a time.

    python datatrove_run.py CORPUS FOLDER

Runs in an environment that has datatrove and nothing of ours; prints one JSON line.
"""

import json
import resource
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter


def cpu_s() -> float:
    """Return the CPU seconds of this process and its finished children."""
    own, children = (resource.getrusage(who) for who in
                     (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))  # fmt: skip
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def main() -> None:
    """Signatures, buckets, clusters, filter: the four steps of its documentation."""
    corpus, folder = Path(sys.argv[1]), Path(sys.argv[2])
    shutil.rmtree(folder, ignore_errors=True)
    config = MinhashConfig()

    def reader() -> JsonlReader:
        return JsonlReader(str(corpus.parent), glob_pattern=corpus.name)

    def run(name: str, *steps: object, tasks: int = 1) -> None:
        logs = str(folder / "logs" / name)
        LocalPipelineExecutor(list(steps), tasks=tasks, workers=1, logging_dir=logs).run()

    parts = {name: str(folder / name) for name in ("signatures", "buckets", "removed", "kept")}
    started = cpu_s()
    run("signatures", reader(), MinhashDedupSignature(parts["signatures"], config))
    run("buckets", MinhashDedupBuckets(parts["signatures"], parts["buckets"], config=config),
        tasks=config.num_buckets)  # fmt: skip
    run("cluster", MinhashDedupCluster(parts["buckets"], parts["removed"], config=config))
    writer = JsonlWriter(parts["kept"], compression=None)
    run("filter", reader(), MinhashDedupFilter(parts["removed"]), writer)
    seconds = cpu_s() - started
    kept = sum(1 for path in Path(parts["kept"]).rglob("*.jsonl") for _ in path.open())
    line = {"cpu_s": seconds, "kept": kept, "version": version("datatrove")}
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
