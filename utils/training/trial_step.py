"""Finds out, by a real step before training, what fits: micro-batch and compiling."""

import logging
import math
import os
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from utils.machine.memory import (
    available_bytes,
    is_out_of_memory,
    peak_bytes,
    reset_peak,
    smaller_micro_batch,
    used_bytes,
)
from utils.model.sizing import memory_bytes
from utils.training.devices.fsdp import is_sharded
from utils.training.guard import start_over
from utils.training.records.provenance import announce
from utils.training.run import global_rows
from utils.training.step.fast_paths import (
    can_compile,
    compile_decoder,
    gradient_error,
    uncompiled,
    undo_compiling,
)
from utils.training.step.gradient_sum import fitting_micro_batch
from utils.training.step.loss import language_model_loss
from utils.training.step.seeding import seed_step
from utils.training.trainer import Trainer

ESTIMATED_SHARE = 0.8
"""Share of the available memory that a training step may take by estimate (CPU)."""
MEASURED_SHARE = 0.95
"""Share that it may take as measured: beyond, Linux would soon kill the process (CPU)."""

GRADIENT_ERROR = {"fp32": 0.03, "bf16": 0.3}
"""Relative error of a parameter's gradient up to which a compiled step counts as the plain one.
Rounding alone gives 1e-4 and, in bf16, 0.02 before the first step and 0.12 later on."""

NO_COMPARISON = "no memory to compare the compiled step with the plain one"

log = logging.getLogger(__name__)


def fit(trainer: Trainer) -> None:
    """Choose the micro-batch, compile, and prove both by a real step, of which nothing stays."""
    state = trainer.state
    earlier = state.fast_paths or (trainer.plan.find("fast_paths", state.step) or {}).get(
        "paths", {}
    )
    is_new = not trainer.optimizers.tensors()
    if trainer.box and is_new and trainer.clock.elapsed_s() > 0.5 * trainer.box.budget_s:
        trainer.box.refuse(trainer.clock.elapsed_s())
    compiling = _is_compiling(trainer, earlier)
    trainer.guard.follow_plan(state)
    if state.micro_batch:
        state.micro_batch = _fitting(trainer, state.micro_batch)
    else:
        _estimate_micro_batch(trainer)
    while (compiled := _proved(trainer, compiling, is_new)) is None:
        was_recomputing = trainer.model.is_activation_checkpointing
        trainer.guard.shrink(state)
        if trainer.model.is_activation_checkpointing and not was_recomputing:
            _estimate_micro_batch(trainer)  # more rows may fit so
    if is_new:
        start_over(trainer.run, trainer.data, trainer.model, trainer.optimizers)
    trainer.fast = replace(trainer.fast, compiled=compiled)
    _record_paths(trainer, earlier)
    _record_micro_batch(trainer)


def _is_compiling(trainer: Trainer, earlier: dict[str, Any]) -> bool:
    cfg, box = trainer.run.cfg, trainer.box
    wanted = bool(earlier.get("compiled", cfg.compile))
    left_s = box.left_s if box and not earlier else None
    if wanted and cfg.compile and is_sharded(trainer.model):
        log.info("not compiled: FSDP gathers the weights between the compiled parts")
        return False
    compiling = can_compile(
        wanted=wanted and cfg.compile, left_s=left_s, startup_s=box.startup_s if box else 0.0
    )
    return bool(trainer.processes.share_numbers([int(compiling)])[0])


def _proved(trainer: Trainer, compiling: bool, is_new: bool) -> bool | None:
    """Return whether the blocks were compiled for a step that fits, None when it does not."""
    device, started = trainer.processes.device, time.monotonic()
    reset_peak(device)
    before, room = used_bytes(device), _room_bytes(trainer)
    compiled = False
    try:
        compiled = compiling and compile_decoder(trainer.model, lambda: _try_step(trainer, is_new))
        if not compiled:
            _try_step(trainer, is_new)
        is_too_much = False
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        is_too_much = True
    taken = peak_bytes(device) - before
    left = MEASURED_SHARE * room - taken if device.type == "cpu" else math.inf
    if trainer.processes.any(is_too_much or left < 0):
        return None
    if compiling and trainer.processes.any(not (compiled and _computes_the_same(trainer, left))):
        undo_compiling(trainer.model)
        return _proved(trainer, compiling=False, is_new=is_new)
    if compiled:
        log.info("compiled the decoder blocks in %.0f s", time.monotonic() - started)
    log.info("a step of %d rows takes %.2f GB", trainer.state.micro_batch, taken / 1e9)
    return compiled


def _try_step(trainer: Trainer, is_new: bool) -> None:
    """Run a step on real rows; in a new run also the update.

    Its state is there from the second step on, beside the activations, so it is allocated first.
    """
    if is_new:
        for parameter in trainer.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        trainer.optimizers.step(0.0)
    seed_step(trainer.run.cfg.seed, 0, 0)
    batch = trainer.feed.batch(trainer.run.cfg.seed, 0, trainer.state.micro_batch)
    _backward(trainer, batch)
    if is_new:
        trainer.optimizers.step(0.0)
    trainer.optimizers.drop_gradients()


def _backward(trainer: Trainer, batch: Tensor) -> None:
    """Add the gradients of the loss of `batch` (B, T), summed and divided by T."""
    with trainer.autocast():
        loss = language_model_loss(
            trainer.model,
            batch,
            batch.shape[1],
            trainer.form,
            chunked=trainer.fast.chunked_head,
        )
    loss.backward()


def _computes_the_same(trainer: Trainer, left_bytes: float) -> bool:
    """Return whether the compiled step gives the gradients of the plain one; warn if it does not.

    Compilers err in silence (torch 2.13 once gave NaN for a transposed bfloat16 tensor here). The
    plain step takes the rows of a micro-batch one by one, which costs it a row's memory; beside
    the compiled one its gradients take some of the `left_bytes`. With dropout there is nothing to
    compare.
    """
    environment = trainer.run.record.values["environment"]
    environment["compiled_step"] = "not compared: dropout"
    if trainer.run.cfg.dropout:
        return True
    environment["compiled_step"] = NO_COMPARISON
    if sum(p.numel() * p.itemsize for p in trainer.model.parameters()) > left_bytes:
        log.info(NO_COMPARISON)
        return True
    batch = trainer.feed.batch(trainer.run.cfg.seed, 0, trainer.state.micro_batch)
    try:
        with uncompiled(trainer.model):
            for row in batch.split(1):
                _backward(trainer, row)
        plain = [parameter.grad for parameter in trainer.model.parameters()]
        trainer.optimizers.drop_gradients()
        _backward(trainer, batch)
        error = gradient_error(trainer.model, plain)
    except (RuntimeError, MemoryError) as problem:
        if not is_out_of_memory(problem):
            raise
        log.info(NO_COMPARISON)
        return True
    finally:
        trainer.optimizers.drop_gradients()
    environment["compiled_step"] = f"off by {error:.1e}"
    if error <= GRADIENT_ERROR["bf16" if trainer.fast.bf16 else "fp32"]:
        log.info("the compiled step gives the gradients of the plain one (off by %.1e)", error)
        return True
    log.warning(
        "the compiled step gives other gradients than the plain one (off by %.1e): training runs "
        "uncompiled, about 1.5 times slower",
        error,
    )
    return False


def _record_paths(trainer: Trainer, earlier: dict[str, Any]) -> None:
    state, paths = trainer.state, trainer.fast.bits() | {"summation": _summation(trainer)}
    announce(earlier, paths)
    state.fast_paths = paths
    if paths != earlier or trainer.plan.find("fast_paths", state.step) is None:
        trainer.plan.record("fast_paths", state.step, paths=paths)
    trainer.run.record.values["environment"] |= trainer.fast.as_dict()
    trainer.run.record.write()


def _summation(trainer: Trainer) -> str:
    """Return what decides the order in which gradients are added up."""
    if trainer.run.cfg.reduce == "canonical":
        return "canonical"
    return f"{trainer.run.cfg.parallel} of {trainer.processes.count}"


def _record_micro_batch(trainer: Trainer) -> None:
    size, step = trainer.state.micro_batch, trainer.state.step
    if trainer.plan.micro_batch(step) == size:
        return
    if size != trainer.run.cfg.batch_size:
        log.info(
            "micro-batch %d instead of %d rows: the global batch stays",
            size,
            trainer.run.cfg.batch_size,
        )
    trainer.plan.record("micro_batch", step, micro_batch=size)


def _fitting(trainer: Trainer, size: int) -> int:
    """Return `size`, or what comes next below it, that shares out the global batch.

    Raises:
        ConfigError: the global batch cannot be shared out among the processes.
    """
    cfg, count = trainer.run.cfg, trainer.processes.count
    return fitting_micro_batch(global_rows(cfg), size, count, canonical=cfg.reduce == "canonical")


def _estimate_micro_batch(trainer: Trainer) -> None:
    """Take the rows that fit by estimate (CPU); on CUDA the real step decides.

    Raises:
        BudgetError: one row does not fit even with its activations recomputed.
    """
    state, processes = trainer.state, trainer.processes
    state.micro_batch = _fitting(trainer, trainer.run.cfg.batch_size)
    if processes.device.type != "cpu":
        return
    rows = global_rows(trainer.run.cfg) // processes.count
    room = ESTIMATED_SHARE * _room_bytes(trainer)
    size: int | None = state.micro_batch
    while size is not None and _estimated_bytes(trainer, size) > room:
        size = smaller_micro_batch(rows, size)
    (size,) = processes.share_numbers([size or 0])
    state.micro_batch = size or 1
    if not size:
        trainer.guard.shrink(state)
        _estimate_micro_batch(trainer)


def _room_bytes(trainer: Trainer) -> float:
    """Return the bytes that one process can take while the others on this machine take theirs."""
    sharing = int(os.environ.get("LOCAL_WORLD_SIZE") or trainer.processes.count)
    on_cpu = trainer.processes.device.type == "cpu"
    return available_bytes(trainer.processes.device) / (sharing if on_cpu else 1)


def _estimated_bytes(trainer: Trainer, size: int) -> int:
    cfg = trainer.run.cfg
    return memory_bytes(
        cfg,
        size,
        trainer.run.length,
        optimizer=cfg.optimizer,
        gradient_checkpointing=trainer.model.is_activation_checkpointing,
    )
