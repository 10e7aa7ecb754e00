"""What a run uses: memory of this process or its GPU, and energy where the machine counts it.

Energy counters are those of whole parts of the machine: what other programs use there counts too.
"""

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from utils.machine.nvidia import energy_reader

POWERCAP = Path("/sys/class/powercap")
"""RAPL counters of Intel and AMD processors (Linux; often readable by root only)."""

log = logging.getLogger(__name__)


def memory_bytes(device: torch.device) -> int:
    """Return the most memory a step has taken on a GPU, or what this process holds on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return psutil.Process().memory_info().rss


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory that was taken so far, in bytes."""
    if device.type != "cpu" or sys.platform == "win32":
        return memory_bytes(device)
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return max(most if sys.platform == "darwin" else 1024 * most, memory_bytes(device))


class Counter:
    """One energy counter; it may begin again at zero after its range."""

    def __init__(self, read: Callable[[], float], range_j: float = 0.0) -> None:
        self._read, self._range_j = read, range_j
        self._last_j = read()
        self.joules = 0.0

    def poll(self) -> None:
        """Take in what was used since the last look (at least one in each turn of the counter)."""
        now_j = self._read()
        used_j = now_j - self._last_j
        self.joules += used_j + self._range_j if used_j < 0 else used_j
        self._last_j = now_j


class EnergyMeter:
    """Energy since it was made, of the GPUs and processors that count it."""

    def __init__(self, device: torch.device, devices: int = 1, powercap: Path = POWERCAP) -> None:
        self._counters: list[Counter] = []
        names = []
        if device.type == "cuda" and (cards := nvml_counters(devices)):
            self._counters += cards
            names.append(f"NVML ({len(cards)} GPU)")
        if processors := rapl_counters(powercap):
            self._counters += processors
            names.append("RAPL")
        self.source: str | None = " + ".join(names) or None
        """What counts, in words; None: nothing here does."""

    def watt_hours(self) -> float | None:
        """Return the energy used so far, None where nothing counts it."""
        try:
            for counter in self._counters:
                counter.poll()
        except OSError as error:
            log.info("energy is no longer measured: %s", error)
            self._counters, self.source = [], None
        if not self._counters:
            return None
        return sum(counter.joules for counter in self._counters) / 3600


def rapl_counters(powercap: Path = POWERCAP) -> list[Counter]:
    """Return a counter for each processor package and its memory that may be read."""
    counters = []
    for zone in sorted(powercap.glob("intel-rapl:*")):  # AMD's have this name too
        try:
            name = (zone / "name").read_text(encoding="utf-8").strip()
            if not name.startswith(("package", "dram")):
                continue
            range_j = int((zone / "max_energy_range_uj").read_text(encoding="utf-8")) / 1e6
            counters.append(Counter(_rapl_reader(zone / "energy_uj"), range_j))
        except (OSError, ValueError):
            continue
    return counters


def _rapl_reader(path: Path) -> Callable[[], float]:
    return lambda: int(path.read_text(encoding="utf-8")) / 1e6


def nvml_counters(devices: int) -> list[Counter]:
    """Return a counter for each of the first `devices` GPUs that torch sees (Volta or newer)."""
    numbers = range(min(devices, torch.cuda.device_count()))
    uuids = (f"GPU-{torch.cuda.get_device_properties(number).uuid}" for number in numbers)
    return [Counter(read) for uuid in uuids if (read := energy_reader(uuid)) is not None]
