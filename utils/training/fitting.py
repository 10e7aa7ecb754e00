"""Finds out, by a real step before training, what fits: micro-batch and compiling."""

import logging
import time
from dataclasses import replace
from typing import Any

import psutil
import torch

from utils.config.pretrain import PretrainConfig
from utils.errors import BudgetError
from utils.model.sizing import memory_bytes
from utils.training.loss import language_model_loss
from utils.training.reduction import fitting_micro_batch
from utils.training.run import global_rows
from utils.training.seeding import seed_step
from utils.training.sharding import is_sharded
from utils.training.speed import can_compile, compile_decoder
from utils.training.trainer import Trainer

MEMORY_SHARE = 0.8
"""Share of the available memory that a training step may take by estimate (CPU)."""

log = logging.getLogger(__name__)


def fit(trainer: Trainer) -> None:
    """Choose the micro-batch, compile, and prove both by one forward and backward pass."""
    cfg, earlier = trainer.run.cfg, trainer.state.fast_paths
    noted = (trainer.plan.find("micro_batch") or {}).get("micro_batch")
    size = trainer.state.micro_batch or noted or _estimated_micro_batch(trainer)
    wanted = bool(earlier["compiled"]) if earlier else cfg.compile
    left_s = trainer.box.left_s if trainer.box and not earlier else None
    startup_s = trainer.box.startup_s if trainer.box else 0.0
    is_new = trainer.state.step == 0
    if trainer.box and is_new and trainer.clock.elapsed_s() > 0.5 * trainer.box.budget_s:
        trainer.box.refuse(trainer.clock.elapsed_s())
    compiling = can_compile(wanted=wanted and cfg.compile, left_s=left_s, startup_s=startup_s)
    size, compiling = _agreed(trainer, size, compiling)
    while True:
        trainer.state.micro_batch = size
        try:
            started = time.monotonic()
            done = compiling and compile_decoder(trainer.model, lambda: _try_step(trainer))
            if not done:
                _try_step(trainer)
            break
        except torch.OutOfMemoryError:
            size = _smaller(trainer, size)
            log.info("out of memory: trying %d rows at a time", size)
            torch.cuda.empty_cache()
    if done:
        log.info("compiled the decoder blocks in %.0f s", time.monotonic() - started)
    trainer.fast = replace(trainer.fast, compiled=done)
    _announce_paths(trainer, earlier)
    _record_micro_batch(trainer)


def _agreed(trainer: Trainer, size: int, compiling: bool) -> tuple[int, bool]:
    """Return rank 0's decisions, so that all processes compute alike, with a size they can share.

    Raises:
        ConfigError: the global batch cannot be shared out among the processes.
    """
    if compiling and is_sharded(trainer.model):
        log.info("not compiled: FSDP gathers the weights between the compiled parts")
        compiling = False
    size, is_compiling = trainer.processes.share_numbers([size, int(compiling)])
    rows, count = global_rows(trainer.run.cfg), trainer.processes.count
    canonical = trainer.run.cfg.reduce == "canonical"
    return fitting_micro_batch(rows, size, count, canonical=canonical), bool(is_compiling)


def _announce_paths(trainer: Trainer, earlier: dict[str, Any]) -> None:
    now = trainer.fast.as_dict() | {"summation": _summation(trainer)}
    changes = [
        f"{name} {earlier[name]} -> {now[name]}" for name in earlier if earlier[name] != now[name]
    ]
    if changes:
        log.warning("other fast paths than before, so not the same bits: %s", ", ".join(changes))
    trainer.state.fast_paths = now
    trainer.run.record.values["environment"] |= now
    trainer.run.record.write()


def _summation(trainer: Trainer) -> str:
    """Return what decides the order in which gradients are added up."""
    if trainer.run.cfg.reduce == "canonical":
        return "canonical"
    return f"{trainer.run.cfg.parallel} of {trainer.processes.count}"


def _record_micro_batch(trainer: Trainer) -> None:
    size, wanted = trainer.state.micro_batch, trainer.run.cfg.batch_size
    found = trainer.plan.find("micro_batch")
    if found is not None and found["micro_batch"] == size:
        return
    if size != wanted:
        log.info("micro-batch %d instead of %d rows: the global batch stays", size, wanted)
    write, step = trainer.processes.is_main, trainer.state.step
    trainer.plan.record("micro_batch", step, write=write, micro_batch=size)


def _try_step(trainer: Trainer) -> None:
    """Run forward and backward on real rows; nothing of it stays."""
    seed_step(trainer.run.cfg.seed, 0, 0)
    batch = trainer.data.batch(trainer.run.cfg.seed, 0, trainer.state.micro_batch)
    with trainer.autocast():
        loss = language_model_loss(trainer.model, batch.to(trainer.processes.device), batch.numel())
    loss.backward()
    trainer.model.zero_grad(set_to_none=True)


def _estimated_micro_batch(trainer: Trainer) -> int:
    """Return the rows that fit by estimate (CPU); on CUDA the real step decides."""
    cfg, size = trainer.run.cfg, trainer.run.cfg.batch_size
    if trainer.processes.device.type != "cpu":
        return size
    room = MEMORY_SHARE * psutil.virtual_memory().available / trainer.processes.count
    while _needed(cfg, size, trainer.run.length) > room:
        size = _smaller(trainer, size)
    return size


def _needed(cfg: PretrainConfig, size: int, length: int) -> int:
    return memory_bytes(
        cfg,
        size,
        length,
        optimizer=cfg.optimizer,
        gradient_checkpointing=cfg.gradient_checkpointing,
    )


def _smaller(trainer: Trainer, size: int) -> int:
    """Return the next smaller micro-batch that divides a process's share of the global batch.

    Raises:
        BudgetError: one row does not fit.
    """
    rows = global_rows(trainer.run.cfg) // trainer.processes.count
    smaller = [part for part in range(1, size) if rows % part == 0 and part <= max(1, size // 2)]
    if not smaller:
        needed = _needed(trainer.run.cfg, 1, trainer.run.length)
        raise BudgetError(
            f"one row of {trainer.run.length} tokens needs about {needed / 1e9:.1f} GB, which is "
            "not there: pass --gradient_checkpointing, lower --max_length, or take a smaller model"
        )
    return smaller[-1]
