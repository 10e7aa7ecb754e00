"""Builds a `Trainer`: data, model, fast paths, micro-batch, plan, and what is to be resumed."""

import logging
import math
import time
from typing import Any

from utils.config.kinds import Kind
from utils.config.pretrain import PretrainConfig
from utils.data.tokens.rows import PackedDataset
from utils.machine.precision import set_matmul_precision
from utils.model.architecture import build_model
from utils.model.attention import DocumentMask, choose_attention
from utils.model.checkpoints import read_card
from utils.model.sizing import count_parameters
from utils.run_folder import PLAN_FILE
from utils.time_box import Clock
from utils.tokenizers.control_tokens import ControlIds
from utils.training.checkpoints.state import TrainState, check_tokenizer, load_checkpoint
from utils.training.devices.fsdp import shard
from utils.training.devices.processes import Processes
from utils.training.records import provenance
from utils.training.records.data_usage import describe_sources
from utils.training.records.metrics import MetricsLog
from utils.training.run import Run, global_rows
from utils.training.schedule.plan import Plan, StepBudget, read_events
from utils.training.schedule.schedule import ENDLESS
from utils.training.step.fast_paths import choose_fast_paths
from utils.training.step.feeding import open_feed
from utils.training.step.loss import RowForm
from utils.training.step.optimizer import Optimizers
from utils.training.step.seeding import make_deterministic
from utils.training.step.validation import ValidationSet, bits_per_byte
from utils.training.trainer import Trainer
from utils.training.trial_step import fit

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
    attention = choose_attention(
        device,
        flash=cfg.flash_attn and cfg.bf16,
        blocked=cfg.blocked_attention,
        dropout=cfg.dropout,
    )
    fast = processes.share(choose_fast_paths(device, attention, cfg, _recorded_paths(run)))
    set_matmul_precision(fast.matmul_precision)
    model = build_model(cfg, cfg.seed, attention, ControlIds.of(run.inputs.manifest))
    model.to(device).train()  # pyright: ignore[reportArgumentType]
    if cfg.gradient_checkpointing:
        model.activation_checkpointing_enable()
    if cfg.parallel == "fsdp" and processes.count > 1:
        shard(model, device, processes.count)
    data = PackedDataset.open(run.data_dirs, "train", run.length, cfg.data_weights, cfg.packing)
    trainer = Trainer(
        run=run,
        processes=processes,
        model=model,
        data=data,
        feed=open_feed(data, device, resident=cfg.tokens_on_gpu),
        form=_row_form(cfg, data, ControlIds.of(run.inputs.manifest)),
        validation=_validation(run, cfg.eval_tokens),
        optimizers=Optimizers.build(model, cfg, fast.muon_dtype),
        fast=fast,
        state=TrainState(),
        plan=Plan(
            run.folder / PLAN_FILE, cfg.warmup_steps, cfg.decay_ratio, is_writer=processes.is_main
        ),
        clock=clock,
        metrics=MetricsLog(run.folder, tensorboard=cfg.tensorboard, wandb=cfg.wandb),
        box=_time_box(cfg, clock),
    )
    _restore(trainer)
    _describe(trainer)
    fit(trainer)
    _size_validation(trainer)
    _plan_fixed(trainer)
    return trainer


def _recorded_paths(run: Run) -> dict[str, Any]:
    """Return what was on in the run that goes on, or that is followed by --plan."""
    if run.checkpoint is not None:
        return TrainState.read(run.checkpoint).fast_paths
    plan = Plan(run.folder / PLAN_FILE, run.cfg.warmup_steps, run.cfg.decay_ratio)
    if run.cfg.plan is not None:
        plan.events = read_events(run.cfg.plan)
    elif run.is_continued:
        plan.load((), step=0)
    return (plan.find("fast_paths", 0) or {}).get("paths", {})


def _row_form(cfg: PretrainConfig, data: PackedDataset, control: ControlIds) -> RowForm:
    mask = DocumentMask(control.eos, data.most_documents) if cfg.document_mask else None
    return RowForm(control.pad if cfg.packing == "best_fit" else None, mask)


def _validation(run: Run, tokens: int) -> ValidationSet:
    mask = run.cfg.document_mask
    return ValidationSet.open(run.data_dirs, run.length, tokens, document_mask=mask)


def _time_box(cfg: PretrainConfig, clock: Clock) -> StepBudget | None:
    if cfg.max_minutes is None:
        return None
    return StepBudget(
        60 * cfg.max_minutes,
        clock,
        save_every_s=60 * cfg.save_minutes,
        save_every_steps=cfg.save_steps,
        startup_s=clock.elapsed_s(),
    )


def _restore(trainer: Trainer) -> None:
    """Load the checkpoint, replay the plan, take back what the log says beyond it."""
    run = trainer.run
    environment = provenance.provenance(trainer.processes.device)
    if run.checkpoint is not None:
        check_tokenizer(run.checkpoint, run.inputs.manifest["tokenizer_sha256"])
        state = load_checkpoint(run.checkpoint, trainer.model, trainer.optimizers)
        trainer.take_state(state)
        _announce_changes(trainer)
        provenance.announce(state.environment, environment)
        log.info("resumed from %s at step %d", run.checkpoint, trainer.state.step)
    if run.is_continued:
        step = trainer.state.step
        trainer.plan.load(trainer.state.events, step=step)
        used_s = trainer.metrics.rewind(step if run.checkpoint else -1)
        trainer.clock.used_before_s = max(used_s, trainer.state.elapsed_s)
        trainer.metrics.event("resume", step, trainer.clock.elapsed_s())
    else:
        trainer.plan.events = list(trainer.state.events)
    if run.cfg.plan is not None:
        trainer.plan.follow(read_events(run.cfg.plan), trainer.state.step)
    trainer.saver.leave_later()
    trainer.state.settings_hash, trainer.state.environment = run.settings_hash, environment


def _announce_changes(trainer: Trainer) -> None:
    run, state = trainer.run, trainer.state
    if run.checkpoint is None or state.settings_hash == run.settings_hash:
        return
    old, new = read_card(run.checkpoint).get("settings", {}), run.cfg.resolved(Kind.SHAPING)
    changes = [
        f"--{name} {old.get(name)} -> {value}"
        for name, value in new.items()
        if old.get(name) != value
    ]
    for what in changes or ["other data or another global batch"]:
        log.warning("not the settings of %s: %s; going on with the new one", run.checkpoint, what)


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
    describe_sources(trainer.data, trainer.run.data_dirs)


# --- validation and plan ------------------------------------------------------------------------


def _size_validation(trainer: Trainer) -> None:
    """In a time box, score no more validation tokens than a small share of it holds."""
    box, run = trainer.box, trainer.run
    if box is None:
        if run.cfg.plan is not None and (found := trainer.plan.find("validation")):
            trainer.validation = _validation(run, found["tokens"])
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
        trainer.plan.record("validation", trainer.state.step, tokens=tokens)
    trainer.validation = _validation(run, tokens)
    box.evaluation_s = batch_s * math.ceil(len(trainer.validation.inputs) / rows)


def _plan_fixed(trainer: Trainer) -> None:
    """Plan a run of known length, or a new length for a resumed one."""
    cfg = trainer.run.cfg
    if cfg.plan is not None:
        return
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
            trainer.plan.record("extend", step, total=ENDLESS)
        return
    first = trainer.plan.find("plan") if trainer.plan.early_stop() else None
    if steps is None or steps in (total, (first or {}).get("total")):
        return
    trainer.announce_passes(steps)
    if total is not None:
        log.warning("%d steps in all instead of %d", steps, total)
    trainer.decide("plan", total=steps, is_fresh=True)
