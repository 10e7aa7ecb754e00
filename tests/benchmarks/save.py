"""How long a save stops training, and how long it takes; prints one JSON line.

python -m tests.benchmarks.save [--optimizer normuon] [--rounds 5] [--folder DIR] [--cpu]

A model of 124M parameters (12 x 768, 50,257 pieces) takes an optimizer step, and its `Saver` saves
it some times, as in training: buffers are made after the first step. `stall_s` is the longest time
that one save kept the training thread, `write_s` the longest from its start to the last fsync and
rename, `foreground_s` the same save without a copy.
"""

import argparse
import json
import logging
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from utils.config.pretrain import PretrainConfig
from utils.machine.facts import cpu_name, usable_cores
from utils.model.architecture import build_model
from utils.model.checkpoints import best_device
from utils.time_box import Clock
from utils.tokenizers.training import train_tokenizer
from utils.training.checkpoints.state import Content, TrainState
from utils.training.checkpoints.writer import Writer
from utils.training.saving import Saver
from utils.training.schedule.plan import Plan
from utils.training.step.optimizer import Optimizers

SHAPE = {
    "n_layer": 12, "d_model": 768, "n_head": 12, "d_ff": 2048, "vocab_size": 50257,
    "sequence_length": 1024,
}  # fmt: skip
PIECES = 600
SHOWN = ("torch", "safetensors")

log = logging.getLogger("bench-save")


@dataclass(frozen=True)
class BenchRun:
    """What a `Saver` asks of a run."""

    folder: Path
    tokenizer_dir: Path
    cfg: PretrainConfig
    writer: Writer = field(default_factory=Writer)

    def card(self) -> dict[str, Any]:
        return {"stage": "pretrain", "template": None, "tokenizer_sha256": "0"}


def main(argv: Sequence[str] | None = None) -> None:
    """Save, measure, and print the line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--optimizer", choices=("normuon", "muon", "adamw"), default="normuon")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to write (the system's for scratch)")
    parser.add_argument("--cpu", action="store_true")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    with tempfile.TemporaryDirectory(prefix="lumi-bench-", dir=args.folder) as name:
        sys.stdout.write(json.dumps(measure(args, Path(name))) + "\n")


def measure(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Return the keys of the JSON line."""
    train_tokenizer([str(vars(module)) for module in (argparse, json, logging)], work, PIECES)
    device = best_device(cpu=args.cpu)
    saver = _saver(args.optimizer, work, device)
    with saver.run.writer as writer:
        started = time.perf_counter()
        saver.is_due(None)
        writer.wait()
        prepare_s = time.perf_counter() - started
        rounds = [_save(saver, number, wait=False) for number in range(1, args.rounds + 1)]
        foreground_s, _ = _save(saver, args.rounds + 1, wait=True)
    content = Content.of(saver.model, saver.optimizers, saver.state)
    return {
        "stall_s": round(max(stall_s for stall_s, _ in rounds), 3),
        "stalls_s": [round(stall_s, 3) for stall_s, _ in rounds],
        "write_s": round(max(write_s for _, write_s in rounds), 2),
        "foreground_s": round(foreground_s, 2),
        "prepare_s": round(prepare_s, 2),
        "megabytes": round(sum(tensor.nbytes for tensor in content.tensors.values()) / 1e6),
        "parameters": sum(tensor.numel() for tensor in content.weights.values()),
        "optimizer": args.optimizer,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "machine": f"{cpu_name()}, {usable_cores()} cores",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in SHOWN},
    }


def _saver(optimizer: str, work: Path, device: torch.device) -> Saver:
    """Return the saver of a model that has taken one step."""
    cfg = PretrainConfig.build({**SHAPE, "optimizer": optimizer})
    model = build_model(cfg).to(device)  # pyright: ignore[reportArgumentType]
    optimizers = Optimizers.build(model, cfg)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizers.step(1.0)
    alone: Any = SimpleNamespace(is_main=True, wait=lambda: None)
    run: Any = BenchRun(work / "run", work, cfg)
    plan = Plan(work / "plan.json", 10, 0.5)
    return Saver(run, alone, model, optimizers, TrainState(), plan, Clock())


def _save(saver: Saver, step: int, *, wait: bool) -> tuple[float, float]:
    """Return the seconds of a save (for the training thread, until it is written)."""
    saver.state.step = step
    started = time.perf_counter()
    saver.save(f"step_{step}", wait=wait)
    stall_s = time.perf_counter() - started
    saver.run.writer.wait()
    write_s = time.perf_counter() - started
    log.info("step %d: stopped for %.3f s, written in %.2f s", step, stall_s, write_s)
    return stall_s, write_s


if __name__ == "__main__":
    main()
