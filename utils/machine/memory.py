"""Memory of a training step: how much it took, and what an allocation that failed looks like."""

import gc
from pathlib import Path

import psutil
import torch

from utils.machine.limits import memory_bytes

CLEAR_REFS, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
FAILED_ALLOCATION = (
    "DefaultCPUAllocator",
    "can't allocate memory",
    "Cannot allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
)
"""What a RuntimeError says that means too little memory (torch has a class for CUDA only)."""
OUT_OF_MEMORY = (
    "memory ran out on one of several processes: lower --batch_size, then go on by the same command"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that memory could not be had, on whatever device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(w in str(error) for w in FAILED_ALLOCATION)


def release_memory(device: torch.device) -> None:
    """Give back what a failed step has left behind."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def available_bytes(device: torch.device) -> int:
    """Return the bytes that this process can still take."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return memory_bytes()[1]


def used_bytes(device: torch.device) -> int:
    """Return the bytes in use: tensors on a GPU, else what the process holds."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return psutil.Process().memory_info().rss


def reset_peak(device: torch.device) -> None:
    """Begin to watch for the most bytes in use."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif CLEAR_REFS.exists():
        CLEAR_REFS.write_text("5")  # proc(5): 5 resets the peak resident set size


def peak_bytes(device: torch.device) -> int:
    """Return the most bytes in use since `reset_peak`; off Linux and CUDA, those in use now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if STATUS.is_file():
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return used_bytes(device)


def smaller_micro_batch(rows: int, size: int) -> int | None:
    """Return the largest divisor of `rows` that is at most half of `size`; None below one row."""
    return next((part for part in range(size // 2, 0, -1) if rows % part == 0), None)
