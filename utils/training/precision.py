"""In which precision this machine multiplies matrices best; on a CPU it is tried, not looked up.

That a processor knows bfloat16 does not make it quick: without AMX an Intel Xeon multiplies
bfloat16 at half the rate of fp32, an AMD EPYC at four times it.
"""

import functools
import logging
import math
import platform
import time
from collections.abc import Callable

import torch
from torch import Tensor

MEDIUM_ERROR = 3e-6
"""Relative error up to which "medium" matrix products count as fp32 (measured: 4.1e-7)."""
WORTHWHILE = 1.2
"""How much faster than fp32 another kind of product must be to be taken."""
PROBE_SIZE = 512
PROBE_ROUNDS = 7

log = logging.getLogger(__name__)


def has_bf16(device: torch.device) -> bool:
    """Return whether products in bfloat16 are done by the hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "mps":
        return platform.mac_ver()[0] >= "14"
    abilities = torch.cpu.get_capabilities()
    return any(abilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16"))


@functools.cache
def is_bf16_faster(device: torch.device) -> bool:
    """Return whether products in bfloat16 are done by the hardware and, on a CPU, are faster.

    Measured once in a process.
    """
    if device.type != "cpu":
        return has_bf16(device)
    if not has_bf16(device):
        return False
    left, right = _operands(PROBE_SIZE)
    in_bf16 = left.bfloat16(), right.bfloat16()
    gain = _speedup(lambda: _product_s(*in_bf16, "highest"), left, right)
    log.debug("bf16 products run at %.2f times the speed of fp32", gain)
    return gain >= WORTHWHILE


def choose_matmul_precision(device: torch.device, *, fast: bool = True, earlier: str = "") -> str:
    """Set the precision of fp32 products and return it.

    On a CPU "medium" leaves MKL's slow path on some processors, is no faster on others and plain
    bf16 on yet others: it is taken where its error is that of fp32 and its speed is better.
    `earlier` is what the run that goes on had: the speed does not count then.
    """
    if not fast:
        log.info("fp32 products: plain (fast_matmul is switched off)")
        return set_matmul_precision("highest")
    if device.type != "cpu":
        return set_matmul_precision("high")
    error = _error("medium")
    if error > MEDIUM_ERROR:
        log.info('fp32 products: plain ("medium" has an error of %.1e here)', error)
        return set_matmul_precision("highest")
    return set_matmul_precision(earlier or ("medium" if _is_medium_faster() else "highest"))


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


@functools.cache
def _is_medium_faster() -> bool:
    left, right = _operands(PROBE_SIZE)
    return _speedup(lambda: _product_s(left, right, "medium"), left, right) >= WORTHWHILE


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
    return plain_s / best_s


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
