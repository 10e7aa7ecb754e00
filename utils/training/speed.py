"""Turns on what makes a training step fast on this machine, and says what it turned on.

Each path has a plain fallback; which ones were on is logged once and recorded, because each gives
other bits.
"""

import logging
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.attention import current_flash_attention_impl

from utils.config.pretrain import PretrainConfig
from utils.training.loss import LossKernel
from utils.training.memory import is_out_of_memory

COMPILE_CACHE = Path(".cache/torchinductor")
COMPILE_PAYS_FROM = 18.0
"""Box left over start-up time from which compiling pays: it takes about 5 times as long as starting
up did (cold cache) and makes a step 1.5 times as fast."""
MEDIUM_ERROR = 3e-6
"""Relative error up to which "medium" matrix products count as fp32 (measured: 4.1e-7)."""
MALLOC = (
    "GLIBC_TUNABLES",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_TOP_PAD_",
)
"""Variables that the Makefile and sessions set for training."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FastPaths:
    """What was on in a run; a change on resume changes the bits and is announced."""

    device: str
    attention: str
    bf16: bool
    compiled: bool
    matmul_precision: str
    muon_precision: str
    """bf16 or fp32: in which Muon orthogonalizes."""
    chunked_head: bool = True
    fused_optimizer: bool = True
    malloc: str = ""
    """The allocator settings of the launcher, "" for none; of no effect on the bits."""

    def as_dict(self) -> dict[str, object]:
        """Return them as JSON-ready values."""
        return asdict(self)

    def bits(self) -> dict[str, object]:
        """Return those that change the bits of a run (the allocator does not)."""
        return {name: value for name, value in self.as_dict().items() if name != "malloc"}


def has_bf16(device: torch.device) -> bool:
    """Return whether products in bfloat16 are done by the hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "mps":
        return platform.mac_ver()[0] >= "14"
    abilities = torch.cpu.get_capabilities()
    return any(abilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16"))


def muon_precision(device: torch.device, *, fused: bool = True) -> str:
    """Return bf16, or fp32 on a CPU that only emulates bf16 (the plain Muon of torch has bf16)."""
    emulated = device.type == "cpu" and not has_bf16(device)
    return "fp32" if fused and emulated else "bf16"


def choose_matmul_precision(device: torch.device, *, fast: bool = True) -> str:
    """Set the precision of fp32 products and return it.

    On a CPU "medium" leaves MKL's slow path on some processors but is plain bf16 on others: a
    product is compared with fp64 and "highest" stays where the error is not that of fp32.
    """
    if not fast:
        log.info("fp32 products: plain (fast_matmul is switched off)")
        return _set_precision("highest")
    if device.type != "cpu":
        return _set_precision("high")
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(256, 256, generator=generator) for _ in range(2))
    exact = left.double() @ right.double()
    _set_precision("medium")
    error = ((left @ right).double() - exact).norm() / exact.norm()
    if error > MEDIUM_ERROR:
        log.info('fp32 products: plain ("medium" has an error of %.1e here)', error)
        return _set_precision("highest")
    return "medium"


def _set_precision(name: str) -> str:
    torch.set_float32_matmul_precision(name)
    return name


def malloc_settings() -> str:
    """Return the settings of the C library's allocator that the launcher gave, as NAME=value."""
    return " ".join(f"{name}={os.environ[name]}" for name in MALLOC if name in os.environ)


def choose_fast_paths(device: torch.device, attention: str, cfg: PretrainConfig) -> FastPaths:
    """Return what is on before compiling; bf16, where it is wanted, needs the hardware."""
    in_bf16 = cfg.bf16 and has_bf16(device)
    if cfg.bf16 and not in_bf16:
        log.info("bf16: not in this hardware, computing in fp32")
    for name in ("chunked_head", "fused_optimizer"):
        if not getattr(cfg, name):
            log.info("%s is switched off", name)
    kernel = current_flash_attention_impl()
    return FastPaths(
        device=device.type,
        attention=f"{attention} {kernel}" if kernel else attention,
        bf16=in_bf16,
        compiled=False,
        matmul_precision=choose_matmul_precision(device, fast=cfg.fast_matmul),
        muon_precision=muon_precision(device, fused=cfg.fused_optimizer),
        chunked_head=cfg.chunked_head,
        fused_optimizer=cfg.fused_optimizer,
        malloc=malloc_settings(),
    )


def can_compile(*, wanted: bool, left_s: float | None, startup_s: float) -> bool:
    """Return whether the decoder is to be compiled; say why when it was wanted and is not.

    `left_s` is what is left of the time box (None: no box, or no choice on resume).
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(COMPILE_CACHE.absolute()))
    if not wanted:
        return False
    compilers = (os.environ.get("CXX"), "c++", "g++", "clang++", "cl")
    if not any(name and shutil.which(name) for name in compilers):
        log.warning("no C++ compiler found: training runs uncompiled, about 1.5 times slower")
        return False
    if left_s is not None and left_s < COMPILE_PAYS_FROM * startup_s:
        log.info("%.0f s are left in the box: too few for compiling to pay", left_s)
        return False
    return True


def compile_decoder(model: nn.Module, step: Callable[[], object]) -> bool:
    """Compile the decoder blocks and the loss in place and try `step`; return whether it worked.

    The blocks share one compiled function, so that 24 layers take no longer than 6.
    """
    layers = model.model.layers  # pyright: ignore[reportAttributeAccessIssue]
    for layer in layers:  # pyright: ignore[reportGeneralTypeIssues]
        layer.compile(dynamic=False)
    LossKernel.compile()
    try:
        step()
    except RuntimeError as error:  # what dynamo and inductor raise is one too
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:160]
        log.warning("compiling failed (%s): training runs uncompiled", reason)
        for layer in layers:  # pyright: ignore[reportGeneralTypeIssues]
            layer._compiled_call_impl = None
        LossKernel.eager()
        return False
    return True
