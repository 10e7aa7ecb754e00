"""In which precision this machine multiplies matrices best; on a CPU it is tried, not looked up.

That a processor knows bfloat16 does not make it quick: without AMX an Intel Xeon multiplies
bfloat16 at half the rate of fp32, an AMD EPYC at four times it.
"""

import functools
import json
import logging
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from utils.machine.limits import cpu_name

MEDIUM_ERROR = 3e-6
"""Relative error up to which "medium" matrix products count as fp32 (measured: 4.1e-7)."""
WORTHWHILE = 1.2
"""How much faster than fp32 another kind of product must be to be taken."""
MAC_WITH_BF16 = 14
"""First macOS whose GPU driver multiplies bfloat16."""
PROBE_SIZE = 512
PROBE_ROUNDS = 7

log = logging.getLogger(__name__)


def has_bf16(device: torch.device) -> bool:
    """Return whether products in bfloat16 are done by the hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "mps":
        return int(platform.mac_ver()[0].split(".")[0] or 0) >= MAC_WITH_BF16
    abilities = torch.cpu.get_capabilities()
    return any(abilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16"))


@dataclass(frozen=True)
class Gains:
    """Which products are worth leaving plain fp32 for."""

    processor: str
    """Where it was measured; "" for a device that says so itself."""
    bf16: bool
    """Products in bfloat16."""
    medium: bool
    """Products of fp32 in torch's precision "medium"; their error is looked at elsewhere."""


@functools.cache
def measured_gains(device: torch.device) -> Gains:
    """Return what is faster on `device`, measured once in a process."""
    if device.type != "cpu":
        return Gains("", has_bf16(device), medium=False)
    left, right = _operands(PROBE_SIZE)
    in_bf16 = left.bfloat16(), right.bfloat16()
    bf16 = has_bf16(device) and _speedup(lambda: _product_s(*in_bf16, "highest"), left, right)
    medium = _speedup(lambda: _product_s(left, right, "medium"), left, right)
    log.debug("by the speed of fp32 products: bf16 %.2f, medium %.2f", bf16, medium)
    return Gains(cpu_name(), bf16 >= WORTHWHILE, medium >= WORTHWHILE)


def known_gains(device: torch.device, recorded: object) -> Gains:
    """Return what a run measured earlier on this processor (`recorded`), else measure it."""
    if device.type == "cpu":
        torch.set_num_threads(torch.get_num_threads())  # what measuring leaves in MKL
        try:
            earlier = TypeAdapter(Gains).validate_json(json.dumps(recorded), strict=True)
        except ValidationError:
            return measured_gains(device)
        if earlier.processor == cpu_name():
            return earlier
    return measured_gains(device)


def is_bf16_faster(device: torch.device) -> bool:
    """Return whether the hardware has products in bfloat16 and, on a CPU, they are faster."""
    return measured_gains(device).bf16


def choose_matmul_precision(
    device: torch.device, *, fast: bool = True, gains: Gains | None = None
) -> str:
    """Set the precision of fp32 products and return it.

    On a CPU "medium" leaves MKL's slow path on some processors, is no faster on others and plain
    bf16 on yet others: it is taken where its error is that of fp32 and its speed is better.
    """
    if not fast:
        log.info("fp32 products: plain (fast_matmul is switched off)")
        return set_matmul_precision("highest")
    if device.type != "cpu":
        return set_matmul_precision("high")
    if not (gains or measured_gains(device)).medium:
        return set_matmul_precision("highest")
    if (error := _error("medium")) > MEDIUM_ERROR:
        log.info('fp32 products: plain ("medium" has an error of %.1e here)', error)
        return set_matmul_precision("highest")
    return set_matmul_precision("medium")


def set_matmul_precision(name: str) -> str:
    """Set the precision of fp32 products (torch's names) and return it."""
    torch.set_float32_matmul_precision(name)
    return name


def _error(precision: str) -> float:
    """Return the relative error of an fp32 product in `precision`."""
    left, right = _operands(256)
    set_matmul_precision(precision)
    exact = left.double() @ right.double()
    return float(((left @ right).double() - exact).norm() / exact.norm())


def _speedup(candidate_s: Callable[[], float], left: Tensor, right: Tensor) -> float:
    """Return the speed of a product of these matrices by that of the plain one in fp32.

    They take turns, the best of each counts, and only the time of this one thread does: a run has
    to choose alike on a machine full of other processes, its own among them.
    """
    plain_s = best_s = math.inf
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(PROBE_ROUNDS):
            plain_s = min(plain_s, _product_s(left, right, "highest"))
            best_s = min(best_s, candidate_s())
    finally:
        torch.set_num_threads(threads)
    return plain_s / max(best_s, 1e-9)  # a coarse clock


def _product_s(left: Tensor, right: Tensor, precision: str) -> float:
    """Return the seconds of this thread in a product; the precision that was set stays."""
    before = torch.get_float32_matmul_precision()
    set_matmul_precision(precision)
    started = time.thread_time()
    _ = left @ right
    seconds = time.thread_time() - started
    set_matmul_precision(before)
    return seconds


def _operands(size: int) -> tuple[Tensor, Tensor]:
    """Return two square matrices without a draw from the global generator."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(size, size, generator=generator) for _ in range(2))
    return left, right
