"""NVIDIA cards as their driver shows them (NVML), whether torch can use them or not.

No driver, or one that does not answer, is no card. A figure that a card does not give is None.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pynvml


@dataclass(frozen=True)
class Card:
    """One card and what it does at the moment."""

    name: str
    memory_bytes: int | None
    used_bytes: int | None
    busy_percent: int | None
    celsius: int | None
    milliwatts: int | None


def cards() -> list[Card]:
    """Return all cards that the driver shows."""
    count = (_ask(pynvml.nvmlDeviceGetCount) if _has_driver() else None) or 0
    handles = (_ask(pynvml.nvmlDeviceGetHandleByIndex, number) for number in range(count))
    return [_card(handle) for handle in handles if handle is not None]


def _card(handle: Any) -> Card:
    memory = _ask(pynvml.nvmlDeviceGetMemoryInfo, handle, pynvml.nvmlMemory_v2)
    return Card(
        _ask(pynvml.nvmlDeviceGetName, handle) or "NVIDIA card",
        getattr(memory, "total", None),
        getattr(memory, "used", None),
        getattr(_ask(pynvml.nvmlDeviceGetUtilizationRates, handle), "gpu", None),
        _ask(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
        _ask(pynvml.nvmlDeviceGetPowerUsage, handle),
    )


def energy_reader(uuid: str) -> Callable[[], float] | None:
    """Return what reads the joules a card has used since its driver was loaded.

    None where it does not count them (older than Volta). The reader raises OSError when it fails.
    """
    handle = _ask(pynvml.nvmlDeviceGetHandleByUUID, uuid) if _has_driver() else None
    if handle is None or _ask(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle) is None:
        return None

    def read() -> float:
        if (millijoules := _ask(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle)) is None:
            raise OSError("the NVIDIA driver does not tell the energy any more")
        return millijoules / 1000

    return read


@functools.cache
def _has_driver() -> bool:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return False
    return True


def _ask(question: Callable[..., Any], *values: Any) -> Any:
    """Return the driver's answer, None for an error."""
    try:
        return question(*values)
    except pynvml.NVMLError:
        return None
