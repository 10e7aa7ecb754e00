"""Speed, memory and quality of pre-training beside its peers; prints one JSON line.

    python -m tests.benchmarks.train [--sections speed memory threads quality] [--seconds 20]
        [--nanogpt PATH] [--nanochat PATH] [--minimind PATH]
    python -m tests.benchmarks.train --device cuda        (make bench-gpu)

Ours is the training step of stage 02 with its default settings; each contender is a process of
its own, and slices of --seconds alternate (A B A B), so that a busy machine slows all of them.
Rates are tokens a second of processor time on one thread (on a GPU: of the clock); start-up,
compiling and two steps of warming up are not counted for anyone. A ratio is the median over the
rounds of ours / theirs; in `ratio_hf_adamw` ours has their optimizer too. `share_of_peak` is
operations (utils.model.sizing.flops_per_token) a second over those of products of 2048 x 2048
matrices in the same precision. `peak_mb` is resident memory above that after the imports. On a CPU
12 x 768 trains with AdamW everywhere (at a few thousand tokens a step Muon would be a third of it,
at the batch of config/base.json it is 2 %), 2048 tokens a step, so that all fit into 24 GB.
The quality section is described in `tests.benchmarks.train_quality`.
"""

import argparse
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.train_run import GEMM, Task, toy_folder
from utils.machine.child_process import FAST_MALLOC
from utils.machine.facts import cpu_name, usable_cores
from utils.machine.precision import is_bf16_faster
from utils.model.sizing import flops_per_token

ROOT = Path(__file__).resolve().parents[2]
TINY = {"n_layer": 6, "d_model": 256, "n_head": 4, "d_ff": 1024}
WIDE = {"n_layer": 12, "d_model": 768, "n_head": 12, "d_ff": 2048, "vocab_size": 32768}
BASE = {"n_layer": 24, "d_model": 768, "n_head": 12, "d_ff": 3072, "vocab_size": 32768}
TOY = {"n_layer": 1, "d_model": 32, "n_head": 2, "d_ff": 48, "vocab_size": 600}
SHAPES: dict[str, dict[str, dict[str, Any]]] = {
    "cpu": {
        "tiny_v32768": {"model": TINY | {"vocab_size": 32768}, "length": 512, "rows": 8},
        "tiny_v8192": {"model": TINY | {"vocab_size": 8192}, "length": 512, "rows": 8},
        "12x768": {"model": WIDE, "length": 512, "rows": 4, "optimizer": "adamw"},
    },
    "cuda": {
        "tiny": {"model": TINY | {"vocab_size": 32768}, "length": 1024, "rows": 64},
        "12x768": {"model": WIDE, "length": 1024, "rows": 64},
        "base": {"model": BASE, "length": 2048, "rows": 16},
    },
    "test": {"toy": {"model": TOY, "length": 32, "rows": 4}},
}
QUALITY: dict[str, Any] = {"model": TINY, "length": 256, "rows": 8}
PEERS = ("nanogpt", "nanochat", "minimind")
SHOWN = ("torch", "transformers", "accelerate", "numpy")

log = logging.getLogger("bench-train")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    sections = ("speed", "memory", "threads", "quality")
    parser.add_argument("--sections", nargs="*", default=None, choices=sections)
    parser.add_argument("--shapes", nargs="*", default=None, help=", ".join(SHAPES["cpu"]))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--seconds", type=float, default=20.0, help="of a slice")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--budgets", type=float, nargs="*", default=[150.0, 360.0])
    parser.add_argument("--data_dir", type=Path, help="prepared text for the quality section")
    parser.add_argument("--without", nargs="*", default=[], help="contenders to leave out")
    parser.add_argument("--settings", type=json.loads, default={}, help="JSON, of ours")
    for peer in PEERS:
        parser.add_argument(f"--{peer}", type=Path, help="path of a checkout")
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("bench-gpu: no CUDA device is visible to torch: run it on a machine with a GPU")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    with tempfile.TemporaryDirectory(prefix="lumi-bench-") as name:
        sys.stdout.write(json.dumps(measure(args, Path(name))) + "\n")


def measure(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Return the keys of the JSON line."""
    everything = ("speed",) if args.device == "cuda" else ("speed", "memory", "threads", "quality")
    sections = args.sections if args.sections is not None else everything
    result: dict[str, Any] = {}
    if "speed" in sections:
        for name in args.shapes or SHAPES[args.device]:
            result |= _speed(name, args, work)
    if "memory" in sections:
        result |= _memory(args, work)
    if "threads" in sections:
        result |= _threads(args, work)
    if "quality" in sections:
        from tests.benchmarks.train_quality import quality

        shape = SHAPES["test"][args.shapes[0]] if args.shapes == ["toy"] else QUALITY
        result |= quality(args, shape, work)
    return result | _surroundings(args)


def _surroundings(args: argparse.Namespace) -> dict[str, Any]:
    machine = f"{cpu_name()}, {usable_cores()} cores"
    if args.device == "cuda":
        machine = torch.cuda.get_device_name()
    versions = {"python": platform.python_version()} | {name: version(name) for name in SHOWN}
    dtype = "bf16" if is_bf16_faster(torch.device(args.device)) else "fp32"
    load = os.getloadavg()[0]
    return {
        "dtype": dtype, "seconds": args.seconds, "rounds": args.rounds, "load": round(load, 1),
        "machine": machine, "versions": versions,
    }  # fmt: skip


# --- processes ----------------------------------------------------------------------------------


class Contender:
    """A process that trains one slice at a time."""

    def __init__(self, task: Task, threads: int = 1) -> None:
        self.task = task
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
        env |= {
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONWARNINGS": "ignore",
        }
        if task.name.startswith("ours") and sys.platform == "linux":
            env |= FAST_MALLOC  # as the Makefile and sessions start it
        self.log = Path(task.work) / f"{task.name}-{time.monotonic_ns()}.log"
        with self.log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.benchmarks.train_run", json.dumps(_values(task))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env=env,
                text=True,
            )

    def answer(self) -> dict[str, float]:
        """Return its next line.

        Raises:
            RuntimeError: it has ended; the message is its last line.
        """
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            last = self.log.read_text(errors="replace").strip().splitlines()[-1:]
            raise RuntimeError(last[0][:200] if last else f"exit {self.process.returncode}")
        return json.loads(line)

    def train(self, seconds: float) -> dict[str, float]:
        """Let it train for so long and return what it did."""
        assert self.process.stdin
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        return self.answer()

    def end(self) -> None:
        """Let it go."""
        if self.process.poll() is None:
            self.process.communicate("\n")


def _values(task: Task) -> dict[str, Any]:
    return asdict(task) | {"settings": dict(task.settings)}


def race(tasks: dict[str, Task], args: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Return what each contender did in each round; the first entry is that of its warming up.

    One that cannot run is told in the log and left out.
    """
    runners: dict[str, Contender] = {}
    found: dict[str, list[dict[str, float]]] = {}
    for name, task in tasks.items():
        runner = Contender(task, int(name.rpartition("@")[2]) if "@" in name else 1)
        try:
            found[name] = [runner.answer()]
            runners[name] = runner
        except RuntimeError as error:
            log.warning("%s not measured: %s", name, error)
    for number in range(args.rounds):
        for name, runner in list(runners.items()):
            try:
                found[name].append(runner.train(args.seconds))
            except (RuntimeError, OSError) as error:  # killed for its memory, say
                log.warning("%s left out, it has ended: %s", name, error)
                del runners[name], found[name]
        told = {n: round(_rate(tasks[n], s[-1])) for n, s in found.items() if n != "gemm"}
        log.info("round %d, tokens/s: %s", number + 1, told)
    for runner in runners.values():
        runner.end()
    return found


def _rate(task: Task, slice_: dict[str, float], clock: str = "") -> float:
    seconds = slice_[clock or ("wall_s" if task.device == "cuda" else "cpu_s")]
    return slice_["steps"] * task.tokens / seconds


# --- sections -----------------------------------------------------------------------------------


def _tasks(
    shape: str, names: Sequence[str], args: argparse.Namespace, work: Path
) -> dict[str, Task]:
    values = (SHAPES[args.device] | SHAPES["test"])[shape]
    folder = work / f"data-{values['model']['vocab_size']}-{values['length']}"
    if not folder.is_dir():
        folder.mkdir()
        toy_folder(folder, values["model"]["vocab_size"], values["length"])
    settings = tuple(args.settings.items())
    common = {"device": args.device, "folder": str(folder), "work": str(work)} | values
    return {
        name: Task(
            name=name, **common, peer=str(getattr(args, name, None) or ""), settings=settings
        )
        for name in names
    }


def _speed(shape: str, args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Return rates, ratios and the share of the peak for one shape."""
    peers = [peer for peer in PEERS if getattr(args, peer)]
    without = {*args.without}
    if (SHAPES[args.device] | SHAPES["test"])[shape].get("optimizer") == "adamw":
        without.add("ours_adamw")
    others = ["ours_adamw", "hf", "hf_compiled", "trainer", *peers]
    names = ["ours", *(name for name in others if name not in without), "gemm"]
    log.info("%s: %s", shape, ", ".join(names))
    tasks = _tasks(shape, names, args, work)
    found = race(tasks, args)
    assert "ours" in found and "gemm" in found, "ours could not be measured"
    gemms = [gemm_rate(tasks["gemm"], slice_) for slice_ in found.pop("gemm")[1:]]
    rates = {
        name: [_rate(tasks[name], slice_) for slice_ in slices[1:]]
        for name, slices in found.items()
    }
    result: dict[str, Any] = {
        f"tokens_per_s_{shape}": {n: round(statistics.median(r)) for n, r in rates.items()}
    }
    for name, theirs in rates.items():
        if name != "ours":
            result[f"ratio_{_shown(name, args.device)}_{shape}"] = _ratio(rates["ours"], theirs)
    if "ours_adamw" in rates and "hf" in rates:
        result[f"ratio_hf_adamw_{shape}"] = _ratio(rates["ours_adamw"], rates["hf"])
    flops = flops_per_token(tasks["ours"].config(), tasks["ours"].length)
    result[f"share_of_peak_{shape}"] = round(
        statistics.median(rates["ours"]) * flops / max(gemms), 3
    )
    result[f"peak_gflops_{shape}"] = round(max(gemms) / 1e9, 1)
    result[f"peak_mb_{shape}"] = {name: round(s[-1]["peak_mb"]) for name, s in found.items()}
    return result


def _ratio(rates: list[float], others: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(rates, others, strict=True)), 2)


def gemm_rate(task: Task, slice_: dict[str, float]) -> float:
    """Return operations a second of the products of one slice."""
    products = slice_["steps"] * (100 if task.device == "cuda" else 1)
    seconds = slice_["wall_s" if task.device == "cuda" else "cpu_s"]
    return products * 2 * GEMM**3 / seconds


def _shown(name: str, device: str) -> str:
    """Return a contender's name in a key: what is compiled says in which precision."""
    if name != "hf_compiled":
        return name
    return f"hf_{'bf16' if is_bf16_faster(torch.device(device)) else 'fp32'}_compile"


def _memory(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Return the peak of two steps above the imports, ours and that of the plain loop."""
    shape = "tiny_v32768"
    peaks = {}
    for name, task in _tasks(shape, ["ours", "hf"], args, work).items():
        runner = Contender(task)
        peaks[name] = runner.answer()["peak_mb"]
        runner.end()
    ratio = round(peaks["ours"] / peaks["hf"], 3)
    return {"ratio_memory": ratio, "step_mb": {name: round(mb) for name, mb in peaks.items()}}


def _threads(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Return how much faster two threads are than one, by the clock."""
    task = _tasks("tiny_v8192", ["ours"], args, work)["ours"]
    found = race({"ours@1": task, "ours@2": task}, args)
    pairs = zip(found["ours@2"][1:], found["ours@1"][1:], strict=True)
    ratios = [_rate(task, two, "wall_s") / _rate(task, one, "wall_s") for two, one in pairs]
    return {"scaling_2_threads": round(statistics.median(ratios), 2)}


if __name__ == "__main__":
    main()
