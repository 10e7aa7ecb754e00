"""What sizes need and what a machine has, and the text tables that show such figures.

The commands of planning share this; each shows its own columns and adds what only it asks.
"""

from typing import Any

from utils.machine.facts import GB, Machine
from utils.model.sizing import checkpoint_bytes, count_parameters, flops_per_token
from utils.planning.sizes import Size, largest_batch, step_bytes
from utils.words import cell as plain_cell
from utils.words import count, plural

TOKENS_PER_PARAMETER = 20
"""Compute-optimal training tokens per parameter (Hoffmann et al., 2022, "Chinchilla")."""
KEPT_BESIDE_STEPS = 3
"""Checkpoints on the disk beside --save_total_limit: best, final, and the one being written."""

Record = dict[str, Any]


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
        ("CPU", f"{machine.cpu}, {plural(machine.cores, 'usable core')}"),
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


def memory_for_training(machine: Machine) -> float:
    """Return the bytes of the memory that a training step lives in."""
    if machine.gpus and machine.device == "cuda":
        return min(gpu.memory_gb for gpu in machine.gpus) * GB
    return machine.memory_available_gb * GB


def fit(size: Size, machine: Machine) -> Record:
    """Return what a size needs of memory and disk, and whether this machine has it."""
    gpu, memory = machine.device == "cuda", memory_for_training(machine)
    training = size.training
    rows = largest_batch(size, memory, training.batch_size, gpu=gpu)
    needed = step_bytes(size, rows or 1, gpu=gpu)
    checkpoint = checkpoint_bytes(size.model, training.optimizer)
    disk = (training.save_total_limit + KEPT_BESIDE_STEPS) * checkpoint
    reasons = []
    if not rows:
        reasons.append(f"{needed / GB:.1f} GB of memory needed, {memory / GB:.1f} free")
    if disk > machine.disk_free_gb * GB:
        reasons.append(f"{disk / GB:.1f} GB of disk needed, {machine.disk_free_gb:.1f} free")
    return {
        "model": size.name,
        "parameters": count_parameters(size.model).total,
        "flops_per_token": flops_per_token(size.model, training.max_length),
        "micro_batch": rows,
        "memory_gb": round(needed / GB, 2),
        "checkpoint_gb": round(checkpoint / GB, 2),
        "disk_gb": round(disk / GB, 2),
        "fits": f"no: {'; '.join(reasons)}" if reasons else "yes",
    }


def table(records: list[Record], columns: tuple[tuple[str, str], ...]) -> str:
    """Return aligned columns as text, numbers on the right."""
    rows = [[title for _, title in columns]]
    rows += [[cell(record.get(key)) for key, _ in columns] for record in records]
    widths = [max(len(row[place]) for row in rows) for place in range(len(columns))]
    right = [
        all(isinstance(record.get(key), int | float | None) for record in records)
        for key, _ in columns
    ]
    lines = []
    for row in rows:
        cells = zip(row, widths, right, strict=True)
        padded = [
            text.rjust(width) if number else text.ljust(width) for text, width, number in cells
        ]
        lines.append("  ".join(padded).rstrip() + "\n")
    return "".join(lines)


def cell(value: object) -> str:
    """Return a value as a table shows it; integers from a million up in M, B or T."""
    if isinstance(value, int) and value >= 1_000_000:
        return count(value, 4)
    return plain_cell(value, 3)
