"""Speed of reading token shards, packed and not; prints one JSON line.

python -m tests.benchmarks.tokens [--tokens 200000000] [--source pydocs] [--vocab_size 8192]

Real ids (of local text) are repeated to the wanted number and written in both formats; that LZ4
looks back 64 KiB only makes the repetition no help. All files are in the page cache, every round
opens them anew, rounds of the formats alternate, and the median is told. Rates are million tokens a
second of CPU time on one core. `sequential` copies slices of 1 Mi ids, `rows` takes 512 rows at
random places as they are stored, `batches` asks PackedDataset for 64 rows of int64, in the order of
training, which is drawn anew each time.
"""

import argparse
import json
import logging
import platform
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tests.stage01 import prepare
from utils.config.prepare import PrepareConfig
from utils.data.tokens.rows import PackedDataset
from utils.data.tokens.shards import Encoded, SplitWriter, TokenShards, format_keys
from utils.files import write_manifest
from utils.machine.limits import cpu_name, usable_cores

SLICE = 1 << 20
ROWS, BATCH = 512, 64
ROUNDS = 7
DOCUMENTS = {"open_ms_1m_documents": 1_000_000, "open_ms_20m_documents": 20_000_000}
SHOWN = ("numpy", "lz4", "torch")

log = logging.getLogger("bench-tokens")


def main(argv: Sequence[str] | None = None) -> None:
    """Write the shards, measure, and print the line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--tokens", type=int, default=200_000_000)
    parser.add_argument("--row_length", type=int, default=1024)
    parser.add_argument("--source", default="pydocs", help="local text, or pydocs")
    parser.add_argument("--vocab_size", type=int, default=8192)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    with tempfile.TemporaryDirectory(prefix="lumi-bench-") as name:
        sys.stdout.write(json.dumps(measure(args, Path(name))) + "\n")


def measure(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Return the keys of the JSON line."""
    ids = _real_ids(args, work)
    log.info("%d ids of real text", len(ids))
    folders, result = {}, {}
    for kind in ("none", "lz4"):
        started = time.process_time()
        folders[kind] = _write(work / kind, _repeated(ids, args.tokens), kind)
        seconds = time.process_time() - started
        result[f"{kind}_write_mtok_per_s"] = round(args.tokens / 1e6 / seconds, 1)
        files = sorted((folders[kind] / "tokens").glob("*[!x]"))  # not .idx
        size = sum(path.stat().st_size for path in files)
        result[f"{kind}_bytes_per_token"] = round(size / args.tokens, 3)
    rates = defaultdict(list)
    for number in range(ROUNDS):
        for kind, folder in folders.items():
            for name, rate in _read(folder, args.row_length, number):
                rates[f"{kind}_{name}_mtok_per_s_core"].append(rate)
        log.info(
            "round %d: %s", number, {name: round(values[-1]) for name, values in rates.items()}
        )
    result |= {name: round(statistics.median(values)) for name, values in rates.items()}
    for name, documents in DOCUMENTS.items():
        folder = _write(work / name, _short_documents(documents), "none")
        times = [_open_seconds(folder) for _ in range(ROUNDS)]
        result[name] = round(1e3 * statistics.median(times), 2)
    shape = {"tokens": args.tokens, "row_length": args.row_length, "vocab_size": args.vocab_size}
    machine = f"{cpu_name()}, {usable_cores()} cores"
    versions = {"python": platform.python_version()} | {name: version(name) for name in SHOWN}
    return result | shape | {"machine": machine, "versions": versions}


def _real_ids(args: argparse.Namespace, work: Path) -> np.ndarray:
    """Return the training ids of the source, prepared for this."""
    settings = {
        "input_path": args.source, "vocab_size": args.vocab_size, "output_dir": work / "text",
        "language": None, "decontaminate": False, "keep_cache": False,
    }  # fmt: skip
    return TokenShards.open(prepare(PrepareConfig.build(settings)), "train").tokens[:]


def _repeated(ids: np.ndarray, tokens: int) -> Iterator[Encoded]:
    """Yield `tokens` ids as documents of 500."""
    for start in range(0, tokens, SLICE):
        part = np.take(ids, np.arange(start, min(start + SLICE, tokens)), mode="wrap")
        lengths = np.diff([*range(0, len(part), 500), len(part)])
        yield Encoded([b""] * len(lengths), part, lengths, lengths)


def _short_documents(number: int) -> Iterator[Encoded]:
    """Yield documents of ten ids."""
    size = 1_000_000
    lengths = np.full(size, 10)
    for _ in range(number // size):
        yield Encoded([b""] * size, np.zeros(10 * size, "<u2"), lengths, lengths)


def _write(folder: Path, batches: Iterator[Encoded], kind: Any) -> Path:
    folder.mkdir()
    with SplitWriter(folder, "train", 50_000_000, kind) as writer:
        for batch in batches:
            writer.write(batch)
    keys = {**format_keys(kind), "kind": "dataset", "token_dtype": "uint16"}
    write_manifest(folder, **keys, splits={"train": writer.summary})
    return folder


def _read(folder: Path, length: int, seed: int) -> Iterator[tuple[str, float]]:
    """Yield (name, million tokens a second) of each way to read a freshly opened folder."""
    for name, way in (("sequential", _sequential), ("rows", _rows), ("batches", _batches)):
        stream = PackedDataset.open(folder, "train", length)
        tokens, seconds = 0, 0.0
        for read in way(stream, seed):
            before = time.process_time()
            tokens += read()
            seconds += time.process_time() - before
        yield name, tokens / 1e6 / seconds


def _sequential(data: PackedDataset, _: int) -> Iterator[Callable[[], int]]:
    (stream,), buffer = data.streams, np.empty(SLICE, data.streams[0].dtype)

    def read() -> int:
        for start in range(0, len(stream), SLICE):
            part = stream[start : start + SLICE]
            buffer[: len(part)] = part
        return len(stream)

    yield read


def _rows(data: PackedDataset, seed: int) -> Iterator[Callable[[], int]]:
    (stream,), chance = data.streams, np.random.default_rng(seed)
    for _ in range(max(1, data.num_rows // ROWS // 20)):
        starts = chance.integers(0, data.num_rows, ROWS) * data.length
        yield lambda starts=starts: stream.rows(starts, data.length).size


def _batches(data: PackedDataset, seed: int) -> Iterator[Callable[[], int]]:
    for number in range(max(1, data.num_rows // BATCH // 20)):
        yield lambda first=number * BATCH: data.batch(seed, first, BATCH).numel()


def _open_seconds(folder: Path) -> float:
    before = time.perf_counter()
    TokenShards.open(folder, "train")
    return time.perf_counter() - before


if __name__ == "__main__":
    main()
