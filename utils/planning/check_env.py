"""Says in eleven lines what this machine is and which sizes it can train (`make check-env`).

python -m utils.planning.check_env
"""

import os
import sys
from pathlib import Path

from utils.config.machine import CheckEnvConfig
from utils.errors import BudgetError
from utils.log import duration
from utils.machine.facts import GB, Machine, describe_machine
from utils.machine.matmul_speed import gemm_rate
from utils.model.sizing import checkpoint_bytes, count_parameters, flops_per_token
from utils.planning.model_choice import UTILISATION
from utils.planning.sizes import Size, largest_batch, standard_sizes, step_bytes
from utils.stage import run_stage

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


def machine_lines(machine: Machine) -> list[tuple[str, str]]:
    """Return the lines about system, processor, memory and GPU."""
    memory = f"{machine.memory_gb:.1f} GB, {machine.memory_available_gb:.1f} GB of it free"
    gpus = ", ".join(f"{gpu.name} ({gpu.memory_gb:.0f} GB)" for gpu in machine.gpus)
    if machine.unused_gpus:
        gpus = (
            f"{machine.unused_gpus[0].name} is there, but torch {machine.torch} cannot use it: "
            "install a torch build for it (make install TORCH_INDEX=URL)"
        )
    return [
        ("system", f"{machine.system}, Python {machine.python}, torch {machine.torch}"),
        ("CPU", f"{machine.cpu}, {machine.cores} usable core(s)"),
        ("memory", f"{memory}; disk: {machine.disk_free_gb:.1f} GB free here"),
        ("GPU", gpus or "none: training runs on the CPU"),
    ]


def compute_line(machine: Machine, rate: float, precision: str) -> tuple[str, str]:
    """Return the line about the speed of matrix products."""
    import torch

    from utils.machine.precision import is_bf16_faster

    bf16 = "no bf16 in hardware: fp32 is used"
    if machine.bf16:
        is_used = is_bf16_faster(torch.device(machine.device))
        bf16 = "bf16 in hardware" if is_used else "bf16 in hardware, but slower: fp32 is used"
    measured = f"{rate / 1e9:,.0f} GFLOP/s in {precision} measured on {machine.device}"
    return "compute", f"{measured}, {bf16}"


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
    text = f"{count_parameters(size.model).total / 1e6:.1f}M parameters"
    memory, gpu = memory_for_training(machine), machine.device == "cuda"
    batch = largest_batch(size, memory, size.training.batch_size, gpu=gpu)
    if not batch:
        needed = step_bytes(size, 1, gpu=gpu) / GB
        return size.name, f"{text}: does not fit ({needed:.1f} GB needed, {memory / GB:.1f} free)"
    tokens_per_s = UTILISATION[machine.device] * rate / flops_per_token(size.model)
    fits = f"fits, micro-batch {batch} in {step_bytes(size, batch, gpu=gpu) / GB:.1f} GB"
    box = f"{tokens_per_s * BOX_MINUTES * 60 / 1e6:.2g}M in {BOX_MINUTES} min"
    return size.name, f"{text}: {fits}; 1M tokens in about {duration(1e6 / tokens_per_s)}, {box}"


def memory_for_training(machine: Machine) -> float:
    """Return the bytes of the memory that a training step lives in."""
    if machine.gpus and machine.device == "cuda":
        return min(gpu.memory_gb for gpu in machine.gpus) * GB
    return machine.memory_available_gb * GB


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
