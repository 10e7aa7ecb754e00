"""What this machine is: processor, memory, disk, GPUs, compiler, libraries.

Limits of a container (cgroups) and of the process (affinity) count as the machine's own. torch is
imported only to ask about GPUs. Knows nothing about models: see `utils.planning.check_env`.
"""

import importlib.metadata
import os
import platform
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from utils.disk import free_bytes
from utils.machine.limits import cpu_name, memory_bytes, output_of, usable_cores

GB = 1e9
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""CPU flags (x86, x86 and ARM) of instructions that multiply bfloat16."""
MAC_WITH_BF16 = 14
"""First macOS whose GPU driver multiplies bfloat16."""


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


def cpu_flags() -> frozenset[str]:
    """Return the processor's feature flags (empty where the system does not tell)."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return frozenset()
    for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.split(":", 1)[1].split())
    return frozenset()


def find_compiler() -> str | None:
    """Return the path of the C compiler ($CXX, else g++, clang++ or c++), or None."""
    names = [os.environ.get("CXX", ""), "g++", "clang++", "c++"]
    return next((found for name in names if name and (found := shutil.which(name))), None)


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
