"""Turns on what makes a training step fast on this machine, and says what it turned on.

Each path has a plain fallback (NorMuon: --optimizer muon); which ones were on is logged once and
recorded, because each gives other bits.
"""

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import current_flash_attention_impl

from utils.config.pretrain import PretrainConfig
from utils.machine.facts import find_compiler
from utils.machine.memory import is_out_of_memory
from utils.machine.precision import Gains, choose_matmul_precision, has_bf16, known_gains
from utils.training.step.loss import LossKernel

COMPILE_CACHE = Path(__file__).resolve().parents[3] / ".cache" / "torchinductor"
"""In the checkout, so that every run finds what an earlier one has compiled."""
COMPILE_PAYS_FROM = 18.0
"""Box left over start-up time from which compiling pays: it takes about 5 times as long as starting
up did (cold cache) and makes a step 1.5 times as fast."""
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
    """bf16 or fp32: in which (Nor)Muon orthogonalizes (torch's own Muon: in bf16)."""
    chunked_head: bool = True
    fused_optimizer: bool = True
    gains: Gains | None = None
    """What `bf16`, `matmul_precision` and `muon_precision` were chosen by."""
    malloc: str = ""
    """The allocator settings of the launcher, "" for none; of no effect on the bits."""

    @property
    def muon_dtype(self) -> torch.dtype:
        """In which (Nor)Muon orthogonalizes."""
        return torch.float32 if self.muon_precision == "fp32" else torch.bfloat16

    def as_dict(self) -> dict[str, object]:
        """Return them as JSON-ready values."""
        return asdict(self)

    def bits(self) -> dict[str, object]:
        """Return those that change the bits of a run (the allocator does not)."""
        return {name: value for name, value in self.as_dict().items() if name != "malloc"}


def malloc_settings() -> str:
    """Return the settings of the C library's allocator that the launcher gave, as NAME=value."""
    return " ".join(f"{name}={os.environ[name]}" for name in MALLOC if name in os.environ)


def choose_fast_paths(
    device: torch.device,
    attention: str,
    cfg: PretrainConfig,
    earlier: Mapping[str, Any] = MappingProxyType({}),
) -> FastPaths:
    """Return what is on before compiling.

    bf16, where it is wanted, must be in the hardware and faster than fp32. `earlier` is what was
    on in the run that goes on: what was measured for it here is not measured again.
    """
    gains = known_gains(device, earlier.get("gains"))
    if cfg.bf16 and not gains.bf16:
        reason = "slower than fp32" if has_bf16(device) else "not in this hardware"
        log.info("bf16: %s, computing in fp32", reason)
    for name in ("chunked_head", "fused_optimizer"):
        if not getattr(cfg, name):
            log.info("%s is switched off", name)
    if cfg.optimizer == "normuon" and not cfg.fused_optimizer:
        log.info("NorMuon has one form: of the optimizers only AdamW is the plain one")
    torch_muon = cfg.optimizer == "muon" and not cfg.fused_optimizer
    kernel = current_flash_attention_impl()
    return FastPaths(
        device=device.type,
        attention=f"{attention} {kernel}" if kernel else attention,
        bf16=cfg.bf16 and gains.bf16,
        compiled=False,
        matmul_precision=choose_matmul_precision(device, fast=cfg.fast_matmul, gains=gains),
        muon_precision="bf16" if gains.bf16 or torch_muon else "fp32",
        chunked_head=cfg.chunked_head,
        fused_optimizer=cfg.fused_optimizer,
        gains=gains,
        malloc=malloc_settings(),
    )


def can_compile(*, wanted: bool, left_s: float | None, startup_s: float) -> bool:
    """Return whether the decoder is to be compiled; say why when it was wanted and is not.

    `left_s` is what is left of the time box (None: no box, or no choice on resume).
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(COMPILE_CACHE))
    if not wanted:
        return False
    if find_compiler() is None:
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
    for layer in _layers(model):
        layer.compile(dynamic=False)
    LossKernel.compile()
    try:
        step()
    except RuntimeError as error:  # what dynamo and inductor raise is one too
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:160]
        log.warning("compiling failed (%s): training runs uncompiled", reason)
        undo_compiling(model)
        return False
    return True


def undo_compiling(model: nn.Module) -> None:
    """Take back what `compile_decoder` did."""
    for layer in _layers(model):
        layer._compiled_call_impl = None
    LossKernel.eager()


@contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Within it decoder blocks and loss are the plain ones."""
    calls, kernel = [layer._compiled_call_impl for layer in _layers(model)], LossKernel.run
    undo_compiling(model)
    try:
        yield
    finally:
        for layer, call in zip(_layers(model), calls, strict=True):
            layer._compiled_call_impl = call
        LossKernel.run = staticmethod(kernel)


def gradient_error(model: nn.Module, plain: Sequence[Tensor | None]) -> float:
    """Return how far the gradients of `model` are from those of the plain step, at worst.

    By parameter, as a share of the norm of `plain` (of the largest norm / 1000 where that is
    more, for a gradient that is all but zero has no digits to compare); infinite where one is not
    a number, or is there in one of the two alone.
    """
    norms = [0.0 if wanted is None else float(wanted.norm()) for wanted in plain]
    least = max(max(norms) / 1000, 1e-30)
    worst = 0.0
    for parameter, wanted, norm in zip(model.parameters(), plain, norms, strict=True):
        if parameter.grad is None and wanted is None:
            continue
        if parameter.grad is None or wanted is None:
            return math.inf
        error = float((parameter.grad - wanted).norm()) / max(norm, least)
        if not math.isfinite(error):
            return math.inf
        worst = max(worst, error)
    return worst


def _layers(model: nn.Module) -> Any:
    return model.model.layers  # pyright: ignore[reportAttributeAccessIssue]
