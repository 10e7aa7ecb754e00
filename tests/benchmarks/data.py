"""Speed, memory and exactness of data preparation beside its peers; prints one JSON line.

    python -m tests.benchmarks.data [--megabytes 200] [--peer_megabytes 20] [--source pydocs]

The corpus is made of local text (`tests.benchmarks.corpus`). Rates are MB of JSON lines a second of
CPU time, of all processes and threads together; start-up and imports are not counted for anyone.
One and two workers take turns three times: the best rate counts, and the median of the ratios.
`dedup` is reading to deduplicated shards with the exact check, without filters; `full` everything
but training the tokenizer. Peers are installed into an environment of their own and run between
two runs of ours on the same file.
"""

import argparse
import json
import logging
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.benchmarks.corpus import build_corpus, repetitions
from utils.config.prepare import MixtureSource
from utils.data.corpus.sources import find_source, iter_source
from utils.machine.limits import cpu_name, usable_cores
from utils.reading.documents import Document

ROOT = Path(__file__).resolve().parents[2]
THRESHOLD = 0.8
PEERS = {
    "datatrove": ("datatrove[io,processing]==0.10.1", "spacy"),
    "text_dedup": ("text-dedup",),
}
SHOWN = ("rensa", "numpy", "ftfy", "sentencepiece", "xxhash")

log = logging.getLogger("bench-data")


def main(argv: Sequence[str] | None = None) -> None:
    """Build the corpora, measure, and print the line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=float, default=200.0)
    parser.add_argument("--peer_megabytes", type=float, default=20.0)
    parser.add_argument("--source", default="pydocs", help="local text, or pydocs")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    with tempfile.TemporaryDirectory(prefix="lumi-bench-") as name:
        sys.stdout.write(json.dumps(measure(args, Path(name))) + "\n")


def measure(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Return the keys of the JSON line."""
    texts = _source_texts(args.source)
    big = build_corpus(texts, work / "corpus.jsonl", args.megabytes, args.seed)
    log.info("%d documents, %d exact and %s near-duplicates", big.documents, big.exact, big.near)
    pairs = [[run_ours("dedup", big.path, work, count) for count in (1, 2)] for _ in range(3)]
    one, two = (min(runs, key=_wall_s) for runs in zip(*pairs, strict=True))
    scaling = statistics.median(_wall_s(alone) / _wall_s(both) for alone, both in pairs)
    assert one["dropped"] == two["dropped"], "the number of workers changed the result"
    recall, precision, repeated = _exactness(big.path, one["dropped"])
    part = build_corpus(texts, work / "part.jsonl", args.megabytes / 20, args.seed)
    run_ours("full", part.path, work, 1)  # trains the tokenizer, whose memory is not counted
    once = run_ours("full", part.path, work, 1)
    full = run_ours("full", big.path, work, 1)
    result = {
        "dedup_mb_per_s_core": _rate(big.bytes, one["cpu_s"]),
        "full_mb_per_s_core": _rate(big.bytes, full["cpu_s"]),
        "scaling_2_workers": round(scaling, 2),
        "recall": recall,
        "precision": precision,
        "repetitions": repeated,
        "peak_rss_mb": max(one["rss_mb"], full["rss_mb"]),
        "peak_rss_mb_1x": once["rss_mb"],
        "peak_rss_mb_20x": full["rss_mb"],
        "rss_after_imports_mb": once["imports_mb"],
        "megabytes": round(big.bytes / 1e6, 1),
    }
    small = build_corpus(texts, work / "small.jsonl", args.peer_megabytes, args.seed + 1)
    fast, plain = (run_ours(what, small.path, work, 1) for what in ("dedup", "reference"))
    assert fast["dropped"] == plain["dropped"], "the plain algorithm decides otherwise"
    result["ratio_predecessor"] = round(plain["cpu_s"] / fast["cpu_s"], 1)
    for peer in args.peers:
        result |= _against(peer, small.path, work)
    machine = f"{cpu_name()}, {usable_cores()} cores"
    versions = {"python": platform.python_version()} | {name: version(name) for name in SHOWN}
    return result | {"machine": machine, "versions": versions}


def run_ours(what: str, corpus: Path, work: Path, workers: int) -> dict[str, Any]:
    """Run one measurement in a process of its own and return what it prints."""
    command = [sys.executable, "-m", "tests.benchmarks.data_run", what, str(corpus), str(work)]
    started = time.monotonic()
    found = _last_json([*command, str(workers)])
    shown = {key: value for key, value in found.items() if key != "dropped"}
    log.info("%s with %d worker(s): %s, %.0f s", what, workers, shown, time.monotonic() - started)
    return found


def _against(peer: str, corpus: Path, work: Path) -> dict[str, Any]:
    """Return our rate divided by the peer's on one file, or why there is none."""
    before = run_ours("dedup", corpus, work, 1)
    try:
        python = _environment(peer, work)
        script = Path(__file__).parent / "peers" / f"{peer}_run.py"
        theirs = _last_json([str(python), str(script), str(corpus), str(work / peer)])
    except subprocess.CalledProcessError as error:
        reason = (error.stderr or "").strip().splitlines()[-1:] or ["no output"]
        log.warning("%s not measured: %s", peer, reason[0])
        return {f"ratio_{peer}": None, f"{peer}_not_measured": reason[0][:200]}
    after = run_ours("dedup", corpus, work, 1)
    log.info("%s: %s", peer, theirs)
    ratio = theirs["cpu_s"] / min(before["cpu_s"], after["cpu_s"])
    rate = _rate(corpus.stat().st_size, theirs["cpu_s"])
    return {
        f"ratio_{peer}": round(ratio, 1),
        f"{peer}_mb_per_s_core": rate,
        f"{peer}_version": theirs["version"],
    }


def _environment(peer: str, work: Path) -> Path:
    """Install a peer into an environment of its own and return its Python."""
    folder = work / f"env-{peer}"
    log.info("installing %s", ", ".join(PEERS[peer]))
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", *PEERS[peer]],
    ):
        subprocess.run(command, check=True, capture_output=True, text=True)
    return folder / "bin" / "python"


def _exactness(corpus: Path, dropped: list[int]) -> tuple[float, float, int]:
    """Return recall and precision of what was dropped, and how many should have been."""
    texts = [json.loads(line)["text"] for line in corpus.open(encoding="utf-8")]
    wanted, found = repetitions(texts, THRESHOLD), set(dropped)
    right = len(wanted & found)
    return right / len(wanted), right / len(found), len(wanted)


def _source_texts(place: str) -> list[str]:
    source = find_source(MixtureSource(name="bench", input_path=place))
    return [record.text for record in iter_source(source) if isinstance(record, Document)]


def _last_json(command: list[str]) -> dict[str, Any]:
    """Run a command in the checkout and return the JSON object of its last line."""
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return json.loads(done.stdout.strip().splitlines()[-1])


def _wall_s(measured: dict[str, Any]) -> float:
    return measured["wall_s"]


def _rate(size: int, seconds: float) -> float:
    return round(size / 1e6 / seconds, 2)


if __name__ == "__main__":
    main()
