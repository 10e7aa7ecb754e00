"""What this machine is: processor, memory, disk, GPUs, compiler, libraries.

Limits of a container (cgroups) and of the process (affinity) count as the machine's own. torch is
imported only to ask about GPUs. Knows nothing about models: see `utils.session.check_env`.
"""

import importlib.metadata
import math
import os
import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from utils.disk import free_bytes

GB = 1e9
CGROUP = Path("/sys/fs/cgroup")
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""CPU flags (x86, x86 and ARM) of instructions that multiply bfloat16."""
MAC_WITH_BF16 = 14
"""First macOS whose GPU driver multiplies bfloat16."""
COMMAND_SECONDS = 10
"""A system command that answers later than this is taken as not there."""


@dataclass(frozen=True)
class Gpu:
    """One accelerator as torch or its driver names it."""

    name: str
    memory_gb: float


@dataclass(frozen=True)
class Machine:
    """The machine as a training run sees it; memory and disk in GB (1e9 bytes)."""

    system: str
    python: str
    torch: str
    """Version with its build, such as 2.13.0+cpu."""
    cpu: str
    cores: int
    """Cores this process may use."""
    memory_gb: float
    memory_available_gb: float
    disk_free_gb: float
    """Free space below the working directory."""
    device: str
    """cuda, mps or cpu: what training uses."""
    gpus: tuple[Gpu, ...]
    """GPUs that torch can use."""
    unused_gpus: tuple[Gpu, ...]
    """NVIDIA cards that the driver shows and this torch build cannot use."""
    bf16: bool
    """Whether the device computes in bfloat16."""
    compiler: str | None
    """C compiler that torch.compile needs on a CPU."""

    def as_json(self) -> dict[str, Any]:
        """Return the facts as JSON-ready values."""
        return asdict(self)


def describe_machine(place: Path = Path(), *, cpu: bool = False) -> Machine:
    """Return the facts about this machine; `cpu` leaves GPUs that are there unused."""
    device, gpus = ("cpu", ()) if cpu else _torch_devices()
    total, available = memory_bytes()
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        torch=importlib.metadata.version("torch"),
        cpu=cpu_name(),
        cores=usable_cores(),
        memory_gb=total / GB,
        memory_available_gb=available / GB,
        disk_free_gb=free_bytes(place.absolute()) / GB,
        device=device,
        gpus=gpus,
        unused_gpus=() if gpus or cpu else nvidia_gpus(),
        bf16=_device_bf16(device),
        compiler=find_compiler(),
    )


def cpu_name() -> str:
    """Return the processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    brand = output_of("sysctl", "-n", "machdep.cpu.brand_string")
    return brand or platform.processor() or platform.machine()


def cpu_flags() -> frozenset[str]:
    """Return the processor's feature flags (empty where the system does not tell)."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return frozenset()
    for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.split(":", 1)[1].split())
    return frozenset()


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


def find_compiler() -> str | None:
    """Return the path of the C compiler ($CXX, else g++, clang++ or c++), or None."""
    names = [os.environ.get("CXX", ""), "g++", "clang++", "c++"]
    return next((found for name in names if name and (found := shutil.which(name))), None)


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


def nvidia_gpus() -> tuple[Gpu, ...]:
    """Return the cards that nvidia-smi shows, whether torch can use them or not."""
    rows = output_of("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
    cards = [row.rsplit(",", 1) for row in rows.splitlines() if "," in row]
    return tuple(
        Gpu(name.strip(), float(mib) * 2**20 / GB)
        for name, mib in cards
        if mib.strip().replace(".", "", 1).isdigit()
    )


def _torch_devices() -> tuple[str, tuple[Gpu, ...]]:
    import torch

    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return "cuda", tuple(Gpu(card.name, card.total_memory / GB) for card in cards)
    if torch.backends.mps.is_available():
        return "mps", (Gpu("Apple GPU (shared memory)", memory_bytes()[0] / GB),)
    return "cpu", ()


def _device_bf16(device: str) -> bool:
    if device == "cuda":
        import torch

        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device == "mps":
        return int(platform.mac_ver()[0].split(".")[0] or 0) >= MAC_WITH_BF16
    return bool(cpu_flags() & BF16_FLAGS)
