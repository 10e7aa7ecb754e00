"""What this machine is: processor, memory, disk, GPUs, compiler, libraries.

Limits of a container (cgroups) and of the process (affinity) count as the machine's own. torch is
imported only to ask about the device. Knows nothing about models: see `utils.planning.check_env`.
"""

import contextlib
import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from utils.disk import free_bytes
from utils.machine.limits import cpu_name, memory_bytes, usable_cores
from utils.machine.nvidia import cards

GB = 1e9


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
    """C++ compiler that torch.compile needs on a CPU."""

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
        bf16=_has_bf16(device),
        compiler=find_compiler(),
    )


def find_compiler() -> str | None:
    """Return the path of the C++ compiler ($CXX, g++, clang++, c++ or cl), or None."""
    names = [os.environ.get("CXX", ""), "g++", "clang++", "c++", "cl"]
    return next((found for name in names if name and (found := shutil.which(name))), None)


def nvidia_gpus() -> tuple[Gpu, ...]:
    """Return the cards that the NVIDIA driver shows, whether torch can use them or not."""
    return tuple(Gpu(card.name, card.memory_bytes / GB) for card in cards() if card.memory_bytes)


def package_versions(names: Iterable[str]) -> dict[str, str | None]:
    """Return the versions of installed packages, None for one that is not there."""
    found: dict[str, str | None] = dict.fromkeys(names)
    for name in found:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _torch_devices() -> tuple[str, tuple[Gpu, ...]]:
    import torch

    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return "cuda", tuple(Gpu(card.name, card.total_memory / GB) for card in cards)
    if torch.backends.mps.is_available():
        return "mps", (Gpu("Apple GPU (shared memory)", memory_bytes()[0] / GB),)
    return "cpu", ()


def _has_bf16(device: str) -> bool:
    import torch

    from utils.machine.precision import has_bf16

    return has_bf16(torch.device(device))
