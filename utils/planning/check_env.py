"""Says in eleven lines what this machine is and which sizes it can train (`make check-env`).

python -m utils.planning.check_env
"""

import os
import sys
from pathlib import Path

from utils.config.machine import CheckEnvConfig
from utils.errors import BudgetError
from utils.machine.facts import GB, Machine, describe_machine
from utils.machine.matmul_speed import gemm_rate
from utils.model.sizing import checkpoint_bytes, flops_per_token
from utils.planning.model_choice import UTILISATION
from utils.planning.sizes import Size, largest_batch, standard_sizes, step_bytes
from utils.planning.table import compute_line, fit, machine_lines, memory_for_training
from utils.stage import run_stage
from utils.words import count, duration

BOX_MINUTES = 30
CHECKPOINTS_KEPT = 5
"""Checkpoints a run may hold at once: three steps, best and final."""


def main(cfg: CheckEnvConfig) -> None:
    """Write the eleven lines.

    Raises:
        BudgetError: this machine can train nothing; the line says what it lacks.
    """
    sizes = standard_sizes(cfg.config_dir)
    machine = describe_machine(cpu=cfg.cpu)
    rate, precision = gemm_rate(machine.device, cfg.measure_seconds)
    lines = [*machine_lines(machine), compute_line(machine, rate, precision)]
    lines += [compiler_line(machine), tracking_line()]
    lines += [size_line(size, machine, rate) for size in sizes]
    sys.stdout.write("".join(f"{name:<9} {text}\n" for name, text in lines))
    require_enough(sizes[0], machine)


def compiler_line(machine: Machine) -> tuple[str, str]:
    """Return the line about the compiler that torch.compile needs."""
    if machine.compiler:
        return "compiler", f"{machine.compiler}: training is compiled"
    return "compiler", "none: training works, but slower (Debian: apt install g++)"


def tracking_line() -> tuple[str, str]:
    """Return the line about what is optional."""
    key = "is set" if os.environ.get("WANDB_API_KEY") else "is not set (optional: offline then)"
    return "tracking", f"TensorBoard and W&B when asked for; WANDB_API_KEY {key}"


def size_line(size: Size, machine: Machine, rate: float) -> tuple[str, str]:
    """Return the line about one size: does it fit, and how long do tokens take."""
    found = fit(size, machine)
    text = f"{count(found['parameters'])} parameters"
    if not found["micro_batch"]:
        free = memory_for_training(machine) / GB
        needed = f"{found['memory_gb']:.1f} GB needed, {free:.1f} free"
        return size.name, f"{text}: does not fit ({needed})"
    tokens_per_s = UTILISATION[machine.device] * rate / flops_per_token(size.model)
    fits = f"fits, micro-batch {found['micro_batch']} in {found['memory_gb']:.1f} GB"
    box = f"{count(tokens_per_s * BOX_MINUTES * 60, 2)} in {BOX_MINUTES} min"
    return size.name, f"{text}: {fits}; 1M tokens in about {duration(1e6 / tokens_per_s)}, {box}"


def require_enough(size: Size, machine: Machine) -> None:
    """Check that the smallest size fits into memory and disk.

    Raises:
        BudgetError: it does not.
    """
    memory = memory_for_training(machine)
    if not largest_batch(size, memory, 1, gpu=machine.device == "cuda"):
        raise BudgetError(
            f"{memory / GB:.1f} GB of free memory is too little for {size.name}, which needs "
            f"{step_bytes(size, 1) / GB:.1f} GB: close other programs"
        )
    needed = CHECKPOINTS_KEPT * checkpoint_bytes(size.model, size.training.optimizer) / GB
    if machine.disk_free_gb < needed:
        raise BudgetError(
            f"{machine.disk_free_gb:.1f} GB of free disk in {Path.cwd()} is too little for "
            f"{size.name}, whose checkpoints need {needed:.1f} GB: free some space"
        )


if __name__ == "__main__":
    sys.exit(run_stage(main, CheckEnvConfig))
