"""Bits per byte at equal processor time: our recipe and those of others, same text and tokenizer.

    python -m tests.benchmarks.train --sections quality --data_dir data/processed/pydocs
        [--budgets 150 360] [--nanogpt PATH] [--nanochat PATH]

Everyone trains a decoder of 6 layers, width 256 and 4 heads on rows of 256 tokens, 2048 tokens a
step, on one thread, for as many steps as the budget holds at the speed of the first ten. Start-up,
compiling and evaluation are not counted; what ours takes to count pairs of tokens for its first
weights is. All are scored on the same held-out documents in fp32 with the same code. Ours has the
defaults of stage 02 and the recipe of config/tiny.json, or what --settings says.
nanoGPT: AdamW 6e-4 with decay 0.1, warm-up, cosine to a tenth, clipping at 1 (its
train.py); without --nanogpt on transformers' GPT2 of the same shape, told as `nanogpt_recipe_gpt2`.
nanochat: its model, optimizer and schedules (its base_train.py).
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.benchmarks.train_run import Task, nanochat_model, nanogpt_model
from utils.config.prepare import PrepareConfig
from utils.config.pretrain import PretrainConfig
from utils.data.tokens.rows import PackedDataset
from utils.data.tokens.shards import read_dataset
from utils.files import read_json
from utils.machine.child_process import FAST_MALLOC
from utils.tokenizers.control_tokens import ControlIds
from utils.training.step.loss import IGNORED
from utils.training.step.validation import ValidationSet

ROOT = Path(__file__).resolve().parents[2]
TINY = read_json(ROOT / "config" / "tiny.json")
RATES = {name: TINY[name] for name in ("learning_rate", "muon_momentum", "initialization")}
VOCAB_SIZE = 8192
EVAL_TOKENS = 131_072
CALIBRATION_STEPS = 10

Update = Callable[[int, int], None]
"""Takes the step and the total and updates the weights from their gradients."""


def quality(args: argparse.Namespace, shape: dict[str, Any], work: Path) -> dict[str, Any]:
    """Return bpb and peers_bpb by budget for a model, rows and length."""
    folder = args.data_dir or _prepared(work)
    peers = {"nanogpt": args.nanogpt, "nanochat": args.nanochat}
    names = [name for name, path in peers.items() if path]
    names += [] if args.nanogpt else ["nanogpt_recipe_gpt2"]
    pieces = read_dataset(folder)["vocab_size"]
    ours: dict[str, Any] = {}
    theirs: dict[str, dict[str, Any]] = {}
    runs: dict[str, dict[str, Any]] = {}
    for budget in args.budgets:
        for name in ["ours", *(name for name in names if name not in args.without)]:
            settings = tuple(args.settings.items()) if name == "ours" else ()
            task = Task(
                name=name,
                device="cpu",
                folder=str(folder.absolute()),
                work=str(work),
                peer=str(peers.get(name) or ""),
                settings=settings,
                **shape | {"model": shape["model"] | {"vocab_size": pieces}},
            )
            found = _run(task, budget)
            runs.setdefault(name, {})[f"{budget:g}"] = found
            if name == "ours":
                ours[f"{budget:g}"] = found["bpb"]
            else:
                theirs.setdefault(name, {})[f"{budget:g}"] = found["bpb"]
    return {"bpb": ours, "peers_bpb": theirs, "quality_runs": runs}


def _prepared(work: Path) -> Path:
    """Return the docstrings of the installed packages, prepared for this."""
    from tests.stage01 import prepare

    settings = {
        "input_path": "pydocs", "vocab_size": VOCAB_SIZE, "output_dir": work / "text",
        "decontaminate": False, "keep_cache": False,
    }  # fmt: skip
    return prepare(PrepareConfig.build(settings))


def _run(task: Task, budget_s: float) -> dict[str, Any]:
    values = asdict(task) | {"settings": dict(task.settings)}
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    if task.name == "ours" and sys.platform == "linux":
        env |= FAST_MALLOC  # as the Makefile and sessions start it
    command = [sys.executable, "-m", __name__, json.dumps(values), str(budget_s)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env)
    return json.loads(done.stdout.strip().splitlines()[-1])


# --- in the process of a run --------------------------------------------------------------------


def train_ours(task: Task, budget_s: float) -> dict[str, Any]:
    """Train by stage 02, first for the calibration steps, then anew for the whole budget."""
    rate = _stage_02(task, CALIBRATION_STEPS, "calibration")
    steps = int((budget_s - rate["start_s"]) / rate["step_s"])
    return _stage_02(task, max(20, steps), "run")


def _stage_02(task: Task, steps: int, name: str) -> dict[str, Any]:
    from utils.time_box import Clock
    from utils.training.devices.processes import Processes
    from utils.training.inputs import find_inputs
    from utils.training.run import open_run
    from utils.training.setup import build_trainer
    from utils.training.step.first_weights import initial_weights

    cfg = PretrainConfig.build(
        task.model
        | dict(model_name=name, sequence_length=task.length, data_dir=task.folder)
        | dict(output_dir=f"{task.work}/{os.getpid()}", max_steps=steps, save_steps=10**7)
        | dict(batch_size=task.rows, gradient_accumulation_steps=1, eval_tokens=2 * task.length)
        | dict(preflight=False, cpu=True, seed=42, **RATES)
        | dict(task.settings)
    )
    with open_run(find_inputs(cfg)) as run:
        trainer = build_trainer(run, Processes(cpu=True), Clock())
        before = time.process_time()
        initial_weights(cfg, trainer.data, ControlIds.of(run.inputs.manifest))
        start_s = time.process_time() - before
        started = None
        for step in trainer.steps():
            if step == 2:  # the first ones allocate
                started = time.process_time()
        assert started is not None
        step_s = (time.process_time() - started) / (steps - 2)
        model = trainer.model.eval()

        def logits(ids: Tensor) -> Tensor:
            with torch.compiler.set_stance("force_eager"):
                return model(ids).logits

        bpb = bits_per_byte(logits, task)
        return {"start_s": start_s, "step_s": step_s, "steps": steps, "bpb": bpb}


def train_plain(task: Task, budget_s: float) -> dict[str, Any]:
    """Train a peer's model by its recipe."""
    model, forward, update = RECIPES[task.name](task)
    batches = _batches(task)
    step_s = _train(forward, update, batches, CALIBRATION_STEPS)
    model, forward, update = RECIPES[task.name](task)  # anew
    steps = max(20, int(budget_s / step_s))
    step_s = _train(forward, update, _batches(task), steps)

    def logits(ids: Tensor) -> Tensor:
        return forward(ids, None)

    model.eval()
    return {"step_s": step_s, "steps": steps, "bpb": bits_per_byte(logits, task)}


def _train(
    forward: Callable[[Tensor, Tensor | None], Tensor],
    update: Update,
    batches: Iterator[Tensor],
    steps: int,
) -> float:
    """Train; return the processor seconds of a step, without the first two."""
    started = 0.0
    for step in range(steps):
        if step == 2:
            started = time.process_time()
        ids = next(batches)
        targets = torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], -1)], 1)
        forward(ids, targets).backward()
        update(step, steps)
    return (time.process_time() - started) / (steps - 2)


def _batches(task: Task) -> Iterator[Tensor]:
    data, step = PackedDataset.open(Path(task.folder), "train", task.length), 0
    while True:
        yield data.batch(42, step * task.rows, task.rows)
        step += 1


def bits_per_byte(logits: Callable[[Tensor], Tensor], task: Task) -> float:
    """Return the bits per byte of the first held-out documents."""
    data = ValidationSet.open([Path(task.folder)], task.length, EVAL_TOKENS)
    nats = 0.0
    with torch.no_grad():
        for inputs, targets in data.batches(task.rows):
            exact = logits(inputs).float().flatten(0, 1)
            nats += float(
                cross_entropy(exact, targets.flatten(), ignore_index=IGNORED, reduction="sum")
            )
    return round(nats / math.log(2) / data.text_bytes, 4)


# --- recipes of others --------------------------------------------------------------------------

Recipe = tuple[nn.Module, Callable[[Tensor, Tensor | None], Tensor], Update]


def nanogpt(task: Task) -> Recipe:
    """nanoGPT's own model."""
    torch.manual_seed(1337)
    model, optimizer = nanogpt_model(task)

    def forward(ids: Tensor, targets: Tensor | None) -> Tensor:
        logits, loss = model(ids, ids if targets is None else targets)
        return logits if targets is None else loss

    return model, forward, _nanogpt_update(model, optimizer)


def nanogpt_recipe_gpt2(task: Task) -> Recipe:
    """GPT2 of transformers, with nanoGPT's choices: no dropout, decay for matrices only."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(1337)
    shape = {name: task.model[name] for name in ("n_layer", "n_head", "vocab_size")}
    drop = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    config = GPT2Config(**shape, **drop, n_embd=task.model["d_model"], n_positions=task.length)
    model = GPT2LMHeadModel(config).train()
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=6e-4, betas=(0.9, 0.95))

    def forward(ids: Tensor, targets: Tensor | None) -> Tensor:
        logits = model(ids).logits
        if targets is None:
            return logits
        return cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)

    return model, forward, _nanogpt_update(model, optimizer)


def _nanogpt_update(model: nn.Module, optimizer: torch.optim.Optimizer) -> Update:
    def update(step: int, total: int) -> None:
        warmup = min(100, total // 10)
        if step < warmup:
            rate = 6e-4 * (step + 1) / (warmup + 1)
        else:
            share = (step - warmup) / max(1, total - warmup)
            rate = 6e-5 + 0.5 * (1 + math.cos(math.pi * share)) * (6e-4 - 6e-5)
        for group in optimizer.param_groups:
            group["lr"] = rate
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return update


def nanochat(task: Task) -> Recipe:
    """nanochat's own model, compiled; rate and momentum of Muon follow its base_train.py.

    Its weight decay is left out: the rule that scales it is made for compute-optimal lengths.
    """
    torch.manual_seed(42)
    model, optimizer = nanochat_model(task)
    compiled: Any = torch.compile(model, dynamic=False)

    def forward(ids: Tensor, targets: Tensor | None) -> Tensor:
        return compiled(ids, targets) if targets is not None else model(ids)

    def update(step: int, total: int) -> None:
        down = round(0.65 * total)
        left = min(1.0, (total - step) / down)
        factor = (step + 1) / 40 if step < 40 else left + (1 - left) * 0.05
        early, late = 0.85 + (0.97 - 0.85) * step / 400, 0.90 + (0.97 - 0.90) * left
        momentum = early if step < 400 else late
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
            if group["kind"] == "muon":
                group["momentum"] = momentum
        optimizer.step()
        model.zero_grad(set_to_none=True)

    return model, forward, update


RECIPES: dict[str, Callable[[Task], Recipe]] = {
    each.__name__: each for each in (nanogpt, nanogpt_recipe_gpt2, nanochat)
}


def main() -> None:
    """Run what the arguments say and print its result."""
    out, sys.stdout = sys.stdout, sys.stderr
    values = json.loads(sys.argv[1])
    values["settings"] = tuple(values["settings"].items())
    task, budget_s = Task(**values), float(sys.argv[2])
    found = (train_ours if task.name == "ours" else train_plain)(task, budget_s)
    out.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
