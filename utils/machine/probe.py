"""Measures how fast this machine computes and starts Python, in a process of its own.

`python -m utils.machine.probe` prints one JSON object; `measure_machine()` runs that. It also warms
the disk cache for the stages that follow. `cpu_slowdown()` needs no torch and takes a second.
"""

import json
import logging
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from utils.checkout import ROOT
from utils.errors import LumiError
from utils.machine.child_process import child_environment
from utils.machine.facts import describe_machine
from utils.machine.matmul_speed import gemm_rate

GEMM_S = 0.8
SHORT = {"bfloat16": "bf16", "float32": "fp32"}
REFERENCE_LOOPS_PER_S = 44e6
"""Turns of the loop below per second on the machine that the cost table was measured on."""
LOOKS, LOOK_S = 10, 0.08
PROBE_TIMEOUT_S = 600

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Speed:
    """What the plan needs to know about this machine."""

    device: str
    """cpu, cuda or mps."""
    flops: float
    """Matrix-product rate in FLOP/s at the best precision (bf16 where it is faster)."""
    precision: str
    """bf16 or fp32: which of the two that was."""
    import_s: float
    """Seconds to start Python and import torch, transformers and trl."""
    memory_bytes: int
    """Memory for training: of the GPU where there is one, else free RAM."""
    machine: dict[str, Any]
    """Names and versions, for the record (`utils.machine.facts`)."""


def cpu_slowdown() -> tuple[float, float]:
    """Return how many times slower one core is than on the reference machine: (best, now).

    The first is the best of several short looks by CPU time, what the machine can do; the second is
    the mean by wall time, what other programs and virtual machines leave of it at the moment. Both
    lie between 0.25 and 8.
    """
    looks = [_slowdown() for _ in range(LOOKS)]
    best = min(cpu for cpu, _ in looks)
    now = sum(wall for _, wall in looks) / len(looks)
    best, now = (min(max(value, 0.25), 8.0) for value in (best, now))
    return best, max(best, now)


def _slowdown() -> tuple[float, float]:
    """Return (by CPU time, by wall time) of one short look."""
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    loops, total = 0, 0
    while time.perf_counter() - wall_s < LOOK_S:
        for number in range(20_000):
            total += number & 7
        loops += 20_000
    wanted_s = loops / REFERENCE_LOOPS_PER_S
    return (time.process_time() - cpu_s) / wanted_s, (time.perf_counter() - wall_s) / wanted_s


def measure_machine() -> Speed:
    """Return the measured speed of this machine (about 10 s).

    Raises:
        LumiError: torch cannot be imported or used; the reason and `make check-env` are named.
    """
    result = subprocess.run(
        [sys.executable, "-m", "utils.machine.probe"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=child_environment(os.environ),
        timeout=PROBE_TIMEOUT_S,
        check=False,
    )
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise LumiError(f"cannot measure this machine ({reason}): run make check-env")
    return Speed(**json.loads(result.stdout.splitlines()[-1]))


def _probe() -> Speed:
    started = time.perf_counter()
    import torch
    from trl.trainer.dpo_trainer import DPOTrainer  # noqa: F401
    from trl.trainer.sft_trainer import SFTTrainer  # noqa: F401

    import_s = time.perf_counter() - started
    from utils.machine.memory import available_bytes

    facts = describe_machine()
    flops, precision = gemm_rate(facts.device, GEMM_S)
    memory = available_bytes(torch.device(facts.device))
    return Speed(facts.device, flops, SHORT[precision], import_s, memory, facts.as_json())


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(_probe())) + "\n")
