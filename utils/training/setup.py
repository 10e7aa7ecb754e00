"""Builds a `Trainer`: data, model, fast paths, micro-batch, plan, and what is to be resumed."""

import logging
import math
import time
from dataclasses import replace
from typing import Any

import psutil
import torch

from utils.config.pretrain import PretrainConfig
from utils.data.control_tokens import ControlIds
from utils.data.packed import PackedDataset
from utils.errors import BudgetError
from utils.model.architecture import build_model
from utils.model.attention import choose_attention
from utils.model.checkpoints import read_card
from utils.model.sizing import count_parameters, memory_bytes
from utils.training.calendar import SAVE_EVERY_S
from utils.training.checkpoint import TrainState, check_tokenizer, load_checkpoint
from utils.training.loss import language_model_loss
from utils.training.metrics import MetricsLog
from utils.training.optimizer import Optimizers
from utils.training.parallel import Processes
from utils.training.plan import PLAN_FILE, Clock, Plan, TimeBox
from utils.training.run import NOT_IDENTITY, Run, global_rows
from utils.training.schedule import ENDLESS
from utils.training.seeding import make_deterministic, seed_step
from utils.training.speed import can_compile, choose_fast_paths, compile_decoder
from utils.training.trainer import Trainer
from utils.training.validation import ValidationSet, bits_per_byte

MEMORY_SHARE = 0.8
"""Share of the available memory that a training step may take by estimate (CPU)."""
VALIDATION_SHARE = 0.008
"""Share of a time box that one validation may take."""

log = logging.getLogger(__name__)


def build_trainer(run: Run, processes: Processes, clock: Clock) -> Trainer:
    """Return a trainer that stands where the run goes on (step 0 of a new one).

    Raises:
        LumiError: data or checkpoint do not fit, or memory, disk or time box are too small.
    """
    cfg, device = run.cfg, processes.device
    if cfg.deterministic and device.type == "cuda":
        make_deterministic()
    attention = choose_attention(device, flash=cfg.flash_attn)
    model = build_model(cfg, cfg.seed, attention, ControlIds.of(run.inputs.manifest))
    model.to(device).train()  # pyright: ignore[reportArgumentType]
    if cfg.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    trainer = Trainer(
        run=run,
        processes=processes,
        model=model,
        data=PackedDataset.open(run.data_dirs, "train", run.length, cfg.data_weights),
        validation=ValidationSet.open(run.data_dirs, run.length, cfg.eval_tokens),
        optimizers=Optimizers.build(model, cfg),
        fast=choose_fast_paths(device, model.config._attn_implementation or "eager", bf16=cfg.bf16),
        state=TrainState(),
        plan=Plan(run.folder / PLAN_FILE, cfg.warmup_steps, cfg.decay_ratio),
        clock=clock,
        metrics=MetricsLog(run.folder, tensorboard=cfg.tensorboard, wandb=cfg.wandb),
        box=_time_box(cfg, clock),
    )
    _restore(trainer)
    _describe(trainer)
    _fit(trainer)
    _size_validation(trainer)
    _plan_fixed(trainer)
    return trainer


def _time_box(cfg: PretrainConfig, clock: Clock) -> TimeBox | None:
    if cfg.max_minutes is None:
        return None
    return TimeBox(
        60 * cfg.max_minutes,
        clock,
        save_every_s=SAVE_EVERY_S,
        save_every_steps=cfg.save_steps,
        startup_s=clock.elapsed_s(),
    )


def _restore(trainer: Trainer) -> None:
    """Load the checkpoint, replay the plan, take back what the log says beyond it."""
    run = trainer.run
    if run.checkpoint is not None:
        check_tokenizer(run.checkpoint, run.inputs.manifest["tokenizer_sha256"])
        trainer.state = load_checkpoint(run.checkpoint, trainer.model, trainer.optimizers)
        _announce_changes(trainer)
        log.info("resumed from %s at step %d", run.checkpoint, trainer.state.step)
    if run.is_continued:
        step = trainer.state.step
        trainer.plan.load(trainer.state.events, step=step)
        used_s = trainer.metrics.rewind(step if run.checkpoint else -1)
        trainer.clock.used_before_s = max(used_s, trainer.state.elapsed_s)
        trainer.metrics.event("resume", step, trainer.clock.elapsed_s())
    else:
        trainer.plan.events = list(trainer.state.events)
    trainer.state.settings_hash = run.settings_hash


def _announce_changes(trainer: Trainer) -> None:
    run, state = trainer.run, trainer.state
    if run.checkpoint is None or state.settings_hash == run.settings_hash:
        return
    old, new = read_card(run.checkpoint).get("settings", {}), run.cfg.resolved()
    changes = [
        f"{name} {old.get(name)} -> {value}"
        for name, value in new.items()
        if name not in NOT_IDENTITY and old.get(name) != value
    ]
    what = ", ".join(changes) or "other data or another global batch"
    log.warning("not the settings of %s: %s; going on with the new ones", run.checkpoint, what)


def _describe(trainer: Trainer) -> None:
    cfg, count = trainer.run.cfg, count_parameters(trainer.run.cfg)
    rows = global_rows(cfg)
    log.info(
        "%s: %.2fM parameters (%.2fM without embeddings), %d rows of %d = %d tokens a step, %s",
        cfg.model_name,
        count.total / 1e6,
        count.without_embeddings / 1e6,
        rows,
        trainer.run.length,
        rows * trainer.run.length,
        "bf16" if trainer.fast.bf16 else "fp32",
    )


# --- micro-batch and compiling ------------------------------------------------------------------


def _fit(trainer: Trainer) -> None:
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


def _announce_paths(trainer: Trainer, earlier: dict[str, Any]) -> None:
    now = trainer.fast.as_dict()
    changes = [
        f"{name} {earlier[name]} -> {now[name]}" for name in earlier if earlier[name] != now[name]
    ]
    if changes:
        log.warning("other fast paths than before, so not the same bits: %s", ", ".join(changes))
    trainer.state.fast_paths = now
    trainer.run.record.values["environment"] |= now
    trainer.run.record.write()


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


# --- validation and plan ------------------------------------------------------------------------


def _size_validation(trainer: Trainer) -> None:
    """In a time box, score no more validation tokens than a small share of it holds."""
    box, run = trainer.box, trainer.run
    if box is None:
        return
    started, rows = time.monotonic(), trainer.state.micro_batch
    with trainer.autocast():
        bits_per_byte(trainer.model, trainer.validation, rows, lambda batches: batches >= 1)
    batch_s = trainer.processes.share(time.monotonic() - started)
    found = trainer.plan.find("validation")
    tokens = run.cfg.eval_tokens
    if found is not None:
        tokens = found["tokens"]
    else:
        batches = max(1, int(VALIDATION_SHARE * box.budget_s / batch_s))
        tokens = min(tokens, batches * rows * run.length)
        write = trainer.processes.is_main
        trainer.plan.record("validation", trainer.state.step, write=write, tokens=tokens)
    trainer.validation = ValidationSet.open(run.data_dirs, run.length, tokens)
    box.evaluation_s = batch_s * math.ceil(len(trainer.validation.inputs) / rows)


def _plan_fixed(trainer: Trainer) -> None:
    """Plan a run of known length, or a new length for a resumed one."""
    cfg, write = trainer.run.cfg, trainer.processes.is_main
    steps = cfg.max_steps
    epochs = cfg.num_train_epochs or (None if trainer.box or steps else 1.0)
    if epochs is not None:
        one_epoch = math.ceil(epochs * trainer.data.num_rows / global_rows(cfg))
        steps = min(steps or one_epoch, one_epoch)
    trainer.limit = steps
    step, total = trainer.state.step, trainer.total
    if trainer.box is not None:
        if total is not None and step >= total:  # a finished run gets another box
            trainer.box.budget_s += trainer.clock.used_before_s
            trainer.plan.record("extend", step, write=write, total=ENDLESS)
        return
    if steps is None or total == steps:
        return
    if total is not None:
        log.warning("%d steps in all instead of %d", steps, total)
    trainer.plan.record("plan", step, write=write, total=steps, is_fresh=True)
    trainer.metrics.event("plan", step, trainer.clock.elapsed_s(), total=steps)
