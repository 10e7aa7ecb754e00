"""Processor, cores and memory as this process may use them. Limits of a container count."""

import math
import os
import platform
import shutil
import subprocess
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
COMMAND_SECONDS = 10
"""A system command that answers later than this is taken as not there."""


def cpu_name() -> str:
    """Return the processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    brand = output_of("sysctl", "-n", "machdep.cpu.brand_string")
    return brand or platform.processor() or platform.machine()


def output_of(*command: str) -> str:
    """Return what a system command writes, or "" where it is missing or fails."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def usable_cores() -> int:
    """Return how many cores this process may use: affinity and the container's quota count."""
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    quota = cgroup_cores(CGROUP)
    return max(1, min(cores, math.ceil(quota))) if quota else cores


def cgroup_cores(root: Path) -> float | None:
    """Return the CPU quota of a container in cores, or None where there is no limit."""
    if limits := _words(root / "cpu.max"):
        return None if limits[0] == "max" else int(limits[0]) / int(limits[1])
    quota = _words(root / "cpu/cpu.cfs_quota_us")
    period = _words(root / "cpu/cpu.cfs_period_us")
    if not quota or not period or int(quota[0]) <= 0:
        return None
    return int(quota[0]) / int(period[0])


def memory_bytes() -> tuple[int, int]:
    """Return (total, available) bytes of memory: the smaller of the machine and the container."""
    memory = psutil.virtual_memory()
    limit, used = cgroup_memory(CGROUP)
    if limit is None or limit >= memory.total:
        return memory.total, memory.available
    return limit, max(0, min(memory.available, limit - used))


def cgroup_memory(root: Path) -> tuple[int | None, int]:
    """Return (limit or None, use without the file cache) in bytes.

    Reads version 2 of cgroups, else version 1.
    """
    for limit_file, use_file, stat_file, cache in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat",
         "total_inactive_file"),
    ):  # fmt: skip
        limit, used = _words(root / limit_file), _words(root / use_file)
        if limit and used and limit[0] != "max":
            stat = _words(root / stat_file)
            cached = int(stat[stat.index(cache) + 1]) if cache in stat else 0
            return int(limit[0]), max(0, int(used[0]) - cached)
    return None, 0


def _words(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split() if path.is_file() else []
