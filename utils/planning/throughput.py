"""Measures tokens per second of real training steps of a model size, in bounded time.

The step is the one of stage 02: same attention, precision, compiled blocks, loss and optimizer.
It is taken in another process, so that the time limit holds and a size that exhausts the memory
takes nothing with it.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from utils.checkout import ROOT
from utils.machine.facts import GB, Gpu, Machine
from utils.model.sizing import flops_per_token
from utils.planning.model_choice import UTILISATION
from utils.planning.sizes import Size, largest_batch, read_size, step_bytes

CPU_TOKENS = 4096
"""Tokens of a step on a CPU: enough to keep it busy, few enough for a big model."""
MOST_STEPS = 20
MEASURED_S = 10.0
"""Steps are timed for this long at most."""
COMPILE_S = 60.0
"""What compiling may take on a slow machine; it is left out where the limit is too tight for it."""
SLOW_FACTOR = 4
"""Uncompiled, on a machine that does other things too, a step takes up to this much longer."""


@dataclass(frozen=True)
class Throughput:
    """Outcome of one measurement."""

    tokens_per_s: float | None
    """None: not measured."""
    note: str
    """How it was measured (rows, compiled or not), or why it was not."""


def measure_apart(size: Size, machine: Machine, rate: float, max_seconds: float) -> Throughput:
    """Return the training throughput of `size`, at the latest after `max_seconds`.

    `rate` are the FLOP/s of matrix products here.
    """
    return measure_together([size], machine, rate, max_seconds)[0]


def measure_together(
    sizes: Sequence[Size],
    machine: Machine,
    rate: float,
    max_seconds: float,
    cpu_tokens: int = CPU_TOKENS,
) -> list[Throughput]:
    """Return the throughput of each size, measured one after the other in a process for all.

    That process is started once, so that little time gives many figures; each size gets half of
    what is left, the last one all. `cpu_tokens` are the most of a step on a CPU.
    """
    task = {
        "paths": [str(size.path.absolute()) for size in sizes],
        "machine": machine.as_json(),
        "rate": rate,
        "max_seconds": max_seconds,
        "cpu_tokens": cpu_tokens,
    }
    reason = f"skipped: no step done within {max_seconds:.3g} s"
    try:
        result = subprocess.run(
            [sys.executable, "-m", "utils.planning.throughput", json.dumps(task)],
            capture_output=True,
            timeout=max_seconds,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )
        written = result.stdout
        if result.returncode:
            last = result.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
            reason = f"failed (exit {result.returncode}): {last[-1][:100]}"
    except subprocess.TimeoutExpired as error:
        written = error.stdout or b""
    lines = [line for line in written.decode().splitlines() if line.endswith("}")]
    found = [Throughput(**json.loads(line)) for line in lines]
    return found + [Throughput(None, reason)] * (len(sizes) - len(found))


def measure(
    size: Size, machine: Machine, rate: float, max_seconds: float, cpu_tokens: int = CPU_TOKENS
) -> Throughput:
    """Return the training throughput of `size`, measured in this process."""
    gpu = machine.device == "cuda"
    memory = (machine.gpus[0].memory_gb if gpu else machine.memory_available_gb) * GB
    length = size.training.max_length or size.model.sequence_length
    most = size.training.batch_size if gpu else max(1, cpu_tokens // length)
    rows = largest_batch(size, memory, most, gpu=gpu)
    if not rows:
        return Throughput(None, f"skipped: needs {step_bytes(size, 1, gpu=gpu) / GB:.1f} GB")
    expected_s = rows * length * flops_per_token(size.model) / (UTILISATION[machine.device] * rate)
    if 2 * expected_s > max_seconds:
        needed_s = f"{2 * expected_s:.0f} s for two steps"
        return Throughput(None, f"skipped: {needed_s} are over the limit of {max_seconds:.0f} s")
    compile_blocks = max_seconds - SLOW_FACTOR * 2 * expected_s > COMPILE_S
    measured_s = min(MEASURED_S, max_seconds / 4)
    step_s, compiled = _time_steps(size, machine, rows, measured_s, compile_blocks=compile_blocks)
    how = "compiled" if compiled else "not compiled"
    return Throughput(rows * length / step_s, f"{rows} x {length} tokens a step, {how}")


def _time_steps(
    size: Size, machine: Machine, rows: int, measured_s: float, *, compile_blocks: bool
) -> tuple[float, bool]:
    """Return (median seconds of a step, whether it was compiled)."""
    from utils.training.step.fast_paths import can_compile, compile_decoder

    model, step = _training_step(size, machine, rows)
    wanted = can_compile(
        wanted=compile_blocks and size.training.compile, left_s=None, startup_s=0.0
    )
    compiled = wanted and compile_decoder(model, step)
    step()
    seconds: list[float] = []
    until = time.perf_counter() + measured_s
    while not seconds or (len(seconds) < MOST_STEPS and time.perf_counter() < until):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), compiled


def _training_step(size: Size, machine: Machine, rows: int) -> tuple[Any, Callable[[], None]]:
    """Return a fresh model on its device and a function that does one whole training step."""
    import torch

    from utils.model.architecture import build_model
    from utils.model.attention import choose_attention
    from utils.training.step.fast_paths import choose_fast_paths
    from utils.training.step.loss import language_model_loss
    from utils.training.step.optimizer import Optimizers, clip_gradients

    device = torch.device(machine.device)
    attention = choose_attention(device, flash=size.training.flash_attn)
    fast = choose_fast_paths(device, attention, size.training)
    model: Any = build_model(size.model, size.training.seed, attention)
    model.to(device).train()
    optimizers = Optimizers.build(model, size.training, fast.muon_dtype)
    length = size.training.max_length or size.model.sequence_length
    ids = torch.randint(4, size.model.vocab_size, (rows, length), device=device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=fast.bf16):
            loss = language_model_loss(model, ids)
        loss.backward()
        clip_gradients(model, size.training.max_grad_norm)
        optimizers.step(1.0)
        loss.item()  # waits for the device

    return model, step


def _run(task: dict[str, Any]) -> None:
    """Measure what `measure_together` asked for and write each outcome as a line of JSON."""
    until = time.monotonic() + task["max_seconds"]
    facts = task["machine"]
    for key in ("gpus", "unused_gpus"):
        facts[key] = tuple(Gpu(**gpu) for gpu in facts[key])
    machine, sizes = Machine(**facts), [read_size(Path(path)) for path in task["paths"]]
    for left in range(len(sizes), 0, -1):
        seconds = (until - time.monotonic()) / min(2, left)
        outcome = measure(sizes[-left], machine, task["rate"], seconds, task["cpu_tokens"])
        sys.stdout.write(json.dumps(asdict(outcome)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _run(json.loads(sys.argv[1]))
