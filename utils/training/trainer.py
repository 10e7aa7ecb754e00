"""The mechanics of pre-training: steps, plan, validation. The script owns the order of events.

A step is a pure function of (settings, seed, plan, step number) and the weights before it.
Legend: B rows of a micro-batch, T positions.
"""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from utils.data.tokens.rows import PackedDataset
from utils.errors import BudgetError, Interrupted
from utils.machine.memory import OUT_OF_MEMORY, is_out_of_memory
from utils.stage import stop_request
from utils.time_box import Clock
from utils.training.checkpoints.state import TrainState
from utils.training.devices.fsdp import is_sharded
from utils.training.devices.processes import Processes
from utils.training.guard import Guard
from utils.training.records.data_usage import announce_passes
from utils.training.records.metrics import MetricsLog
from utils.training.run import Run, global_rows
from utils.training.saving import Saver
from utils.training.schedule.intervals import Intervals
from utils.training.schedule.plan import Plan, StepBudget
from utils.training.schedule.schedule import ENDLESS
from utils.training.step.fast_paths import FastPaths
from utils.training.step.feeding import Feed, own_batches
from utils.training.step.gradient_sum import CanonicalSum, FastSum, new_sum
from utils.training.step.loss import RowForm, language_model_loss
from utils.training.step.optimizer import Optimizers, clip_gradients
from utils.training.step.seeding import seed_step
from utils.training.step.validation import ValidationSet, bits_per_byte

log = logging.getLogger(__name__)


@dataclass
class Trainer:
    """Owns weights, optimizer and counters of a run."""

    run: Run
    processes: Processes
    model: PreTrainedModel
    data: PackedDataset
    feed: Feed
    form: RowForm
    validation: ValidationSet
    optimizers: Optimizers
    fast: FastPaths
    state: TrainState
    plan: Plan
    clock: Clock
    metrics: MetricsLog
    box: StepBudget | None = None
    intervals: Intervals = field(init=False)
    saver: Saver = field(init=False)
    guard: Guard = field(init=False)
    limit: int | None = None
    """Steps at most, by --max_steps or --num_train_epochs."""
    loss: float = math.nan
    """Mean loss of the last step in nats per token."""
    val_bpb: float | None = None
    tokens_per_s: float = 0.0
    grad_norm: float = math.nan
    """Of the last step, before it was scaled down."""
    last_validation: int = 0
    """Step of the last validation; 0 before any."""

    def __post_init__(self) -> None:
        self.intervals = Intervals(self.run.cfg)
        self.saver = Saver(
            self.run, self.processes, self.model, self.optimizers, self.state, self.plan,
            self.clock, self.box,
        )  # fmt: skip
        self.guard = Guard(
            self.run, self.processes, self.model, self.data, self.form, self.optimizers, self.plan,
            self.clock, self.metrics, self.autocast,
        )  # fmt: skip

    def steps(self) -> Iterator[int]:
        """Train; yield each finished step until the plan is done.

        Raises:
            Interrupted: SIGINT or SIGTERM arrived; the step was finished and saved.
            LumiError: the loss is not a number again and again, or one row does not fit.
        """
        self.saver.last_save_s = self.clock.elapsed_s()
        kept = self.metrics.last_validation
        (self.last_validation,) = self.processes.share_numbers(
            [self.state.step if kept is None else kept]
        )
        while (total := self._plan_step()) is None or self.state.step < total:
            self.train_step()
            yield self.state.step
            self._stop_if_asked()

    def train_step(self) -> None:
        """One optimizer step over the global batch; what goes wrong is undone and done again."""
        started = time.monotonic()
        while not self._try_step():
            pass
        self._measure(time.monotonic() - started, self.run.step_tokens)

    def _try_step(self) -> bool:
        """Do the step and return True, or let the guard change the plan for it."""
        step = self.state.step
        self.guard.follow_plan(self.state)
        tokens = self._tokens(step)
        total = self._accumulate(step, tokens)
        if self.processes.any(total is None):
            self.guard.shrink(self.state)
            return False
        assert total is not None
        loss = total.finish()
        norm = clip_gradients(self.model, self.run.cfg.max_grad_norm)
        loss, norm = torch.stack([loss, norm]).tolist()
        if reason := self.guard.objection(self.state, loss, norm):
            self._go_on_from(self.guard.refuse(self.state, loss, norm, reason))
            return False
        if not self._update(step):
            self._go_on_from(self.guard.undo_update(self.state))
            return False
        self.loss, self.grad_norm = loss, norm
        self.guard.note(self.state, loss)
        self.state.step += 1
        self.state.tokens += tokens
        return True

    def _tokens(self, step: int) -> int:
        """Return the tokens in the rows of a step, padding not counted."""
        rows = global_rows(self.run.cfg)
        return self.data.count_tokens(self.run.cfg.seed, self.plan.first_row(step, rows), rows)

    def _accumulate(self, step: int, tokens: int) -> FastSum | CanonicalSum | None:
        """Work out this process's gradients; return their sum, None without the memory."""
        try:
            return self._forward_and_backward(step, tokens)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if is_sharded(self.model):  # the others wait in another exchange
                raise BudgetError(OUT_OF_MEMORY) from error
            return None

    def _forward_and_backward(self, step: int, tokens: int) -> FastSum | CanonicalSum:
        cfg, size, processes = self.run.cfg, self.state.micro_batch, self.processes
        rows = global_rows(cfg)
        first = self.plan.first_row(step, rows)
        total = new_sum(cfg, self.model, processes, rows // (size * processes.count))
        for place, start, after in own_batches(first, rows, size, processes.rank, processes.count):
            batch = self.feed.batch(cfg.seed, start, size, after)  # (B, T)
            seed_step(cfg.seed, step, place)
            with self.autocast():
                loss = language_model_loss(
                    self.model, batch, tokens - rows, self.form, chunked=self.fast.chunked_head
                )
            loss.backward()
            total.add(loss.detach())
        return total

    def _update(self, step: int) -> bool:
        """Update the weights; return False where memory ran out half-way."""
        try:
            self.optimizers.step(self.plan.schedule(step).factor(step))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if self.processes.count > 1:
                raise BudgetError(OUT_OF_MEMORY) from error
            return False
        return True

    def _go_on_from(self, state: TrainState) -> None:
        """Take `state`, which may be that of an earlier step."""
        if state is self.state:
            return
        self.take_state(state)
        self.saver.leave_later()
        (last,) = self.processes.share_numbers([self.metrics.last_validation or 0])
        if last != self.last_validation:
            self.last_validation, self.val_bpb = last, None
        if self.box is not None:
            self.box.last_step = min(self.box.last_step, state.step)

    def autocast(self) -> AbstractContextManager:
        """Products in bfloat16 where that is on."""
        kind = self.processes.device.type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=self.fast.bf16)

    def _measure(self, seconds: float, tokens: int) -> None:
        rate = tokens / seconds
        self.tokens_per_s += (rate - self.tokens_per_s) * 0.1 if self.tokens_per_s else rate
        if self.box is not None:
            self.box.measured(seconds, self.total or 100)

    def _stop_if_asked(self) -> None:
        asked = self.processes.any(bool(stop_request))
        if asked and self.state.step < (self.total or math.inf):
            self.saver.save(f"step_{self.state.step}", wait=True)
            raise Interrupted(f"saved at step {self.state.step}: continue with `make resume`")

    def take_state(self, state: TrainState) -> None:
        """Go on from the counters of a checkpoint."""
        self.state = state
        self.saver.take_state(state)

    @property
    def total(self) -> int | None:
        """Steps of the run as planned so far; None while calibrating."""
        return self.plan.total(self.state.step)

    @property
    def learning_rate(self) -> float:
        """Rate of the AdamW group in the last step."""
        step = max(0, self.state.step - 1)
        return self.run.cfg.learning_rate * self.plan.schedule(step).factor(step)

    def _plan_step(self) -> int | None:
        """Let the time box change the plan; return the total steps."""
        step, total = self.state.step, self.total
        if self.box is None:
            return total
        wanted, is_over = -1, self.box.left_s <= 0
        if self.processes.is_main and (step > self.plan.planned_until or is_over):
            limit = self.plan.early_stop() or self.limit or ENDLESS
            wanted = self.box.wanted_total(step, total, limit)
        (wanted,) = self.processes.share_numbers([wanted])
        if wanted < 0:
            return total
        name = "plan" if total is None else "replan"
        self.decide(name, total=wanted)
        level = logging.INFO if total is None else logging.DEBUG
        log.log(level, "%s at step %d: %d steps in all", name, step, wanted)
        if total is None:
            self.announce_passes(wanted)
            self.saver.save(f"step_{step}")
        return wanted

    def decide(self, name: str, *, total: int, **values: Any) -> None:
        """Write a new length of the run into plan and metrics, before it takes effect."""
        self.plan.record(name, self.state.step, total=total, **values)
        self.metrics.event(name, self.state.step, self.clock.elapsed_s(), total=total)

    def announce_passes(self, total: int) -> None:
        """Say which data are seen more than once in `total` steps."""
        rows = total * global_rows(self.run.cfg)
        announce_passes(self.data, self.run.data_dirs, self.run.cfg.seed, rows)

    def is_log_due(self) -> bool:
        """Whether the last step is to be recorded."""
        return self.intervals.is_log_due(self.state.step, self.total)

    def is_validation_due(self) -> bool:
        """Whether to validate now; the last validation comes with `finish`."""
        since = self.state.step - self.last_validation
        is_boxed = self.plan.find("validation") is not None  # what every box records, for a replay
        price = self.validation.tokens * self.processes.count / self.run.step_tokens
        return self.intervals.is_validation_due(
            self.state.step, self.total, since, is_boxed=is_boxed, price=price
        )

    def is_save_due(self) -> bool:
        """Whether to save now; rank 0's clock decides."""
        is_due = self.saver.is_due(self.total)
        return bool(self.processes.share_numbers([int(is_due)])[0])

    def validate(self, max_batches: int | None = None) -> float:
        """Measure bits per byte, record it, and return it; cut short where the box would end."""
        started = time.monotonic()
        limit_s = self.box.budget_s - 1.5 * self.box.save_s - 1.0 if self.box else math.inf

        def is_over(batches: int) -> bool:
            is_over = batches == max_batches or self.clock.elapsed_s() > limit_s
            return bool(self.processes.share_numbers([int(is_over)])[0])

        with self.autocast():
            bpb, tokens = bits_per_byte(
                self.model, self.validation, self.state.micro_batch, is_over
            )
        self.last_validation = self.state.step
        self.val_bpb = bpb = self.processes.share(bpb)
        self.metrics.log(self.state.step, self.clock.elapsed_s(), val_bpb=round(bpb, 6))
        log.info("step %d: %.4f bits per byte on %d held-out tokens", self.state.step, bpb, tokens)
        if self.box is not None and max_batches is None:
            self.box.evaluation_s = max(0.7 * self.box.evaluation_s, time.monotonic() - started)
        return bpb

    def finish(self) -> Path:
        """Validate and save at the end; return the final checkpoint."""
        return self.saver.finish(self.validate())
