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

import torch
from transformers import PreTrainedModel

from utils.data.packed import PackedDataset
from utils.errors import Interrupted, LumiError
from utils.stage import stop_request
from utils.training.calendar import Calendar
from utils.training.checkpoint import TrainState
from utils.training.loss import language_model_loss
from utils.training.metrics import MetricsLog
from utils.training.optimizer import Optimizers, clip_gradients
from utils.training.parallel import Processes
from utils.training.plan import Clock, Plan, TimeBox
from utils.training.reduction import new_sum
from utils.training.run import Run, global_rows
from utils.training.saving import Saver
from utils.training.seeding import seed_step
from utils.training.speed import FastPaths
from utils.training.validation import ValidationSet, bits_per_byte

log = logging.getLogger(__name__)


@dataclass
class Trainer:
    """Owns weights, optimizer and counters of a run."""

    run: Run
    processes: Processes
    model: PreTrainedModel
    data: PackedDataset
    validation: ValidationSet
    optimizers: Optimizers
    fast: FastPaths
    state: TrainState
    plan: Plan
    clock: Clock
    metrics: MetricsLog
    box: TimeBox | None = None
    calendar: Calendar = field(init=False)
    saver: Saver = field(init=False)
    limit: int | None = None
    """Steps at most, by --max_steps or --num_train_epochs."""
    loss: float = math.nan
    """Mean loss of the last step in nats per token."""
    val_bpb: float | None = None
    tokens_per_s: float = 0.0
    _last_validation: int = 0

    def __post_init__(self) -> None:
        self.calendar = Calendar(self.run.cfg)
        self.saver = Saver(
            self.run,
            self.processes,
            self.model,
            self.optimizers,
            self.state,
            self.plan,
            self.clock,
            self.box,
        )

    def steps(self) -> Iterator[int]:
        """Train; yield each finished step until the plan is done.

        Raises:
            Interrupted: SIGINT or SIGTERM arrived; the step was finished and saved.
            LumiError: the loss is not a number.
        """
        self.saver.last_save_s, self._last_validation = self.clock.elapsed_s(), self.state.step
        while (total := self._plan_step()) is None or self.state.step < total:
            self.train_step()
            yield self.state.step
            self._stop_if_asked()

    def train_step(self) -> None:
        """One optimizer step over the global batch."""
        started = time.monotonic()
        step, rows = self.state.step, global_rows(self.run.cfg)
        size, count = self.state.micro_batch, self.processes.count
        targets = rows * (self.run.length - 1)
        per_process = rows // (size * count)
        total = new_sum(self.run.cfg, self.model, self.processes, per_process)
        for micro_step in range(per_process):
            place = self.processes.rank * per_process + micro_step
            batch = self.data.batch(self.run.cfg.seed, step * rows + place * size, size)  # (B, T)
            seed_step(self.run.cfg.seed, step, place)
            with self.autocast():
                loss = language_model_loss(
                    self.model, batch.to(self.processes.device, non_blocking=True), targets
                )
            loss.backward()
            total.add(loss.detach())
        self.loss = total.finish().item()
        norm = clip_gradients(self.model, self.run.cfg.max_grad_norm)
        self._check_finite(norm)
        self.optimizers.step(self.plan.schedule(step).factor(step))
        self.state.step += 1
        self.state.tokens += rows * self.run.length
        self._measure(time.monotonic() - started, rows * self.run.length)

    def autocast(self) -> AbstractContextManager:
        """Products in bfloat16 where that is on."""
        kind = self.processes.device.type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=self.fast.bf16)

    def _check_finite(self, norm: torch.Tensor) -> None:
        if math.isfinite(self.loss) and bool(torch.isfinite(norm)):
            return
        raise LumiError(
            f"step {self.state.step + 1}: the loss is {self.loss}, the gradient norm {norm:.3g}: "
            "lower --learning_rate and --muon_learning_rate, then go on from the last good "
            f"checkpoint with --resume_from_checkpoint {self.run.folder}"
        )

    def _measure(self, seconds: float, tokens: int) -> None:
        rate = tokens / seconds
        self.tokens_per_s += (rate - self.tokens_per_s) * 0.1 if self.tokens_per_s else rate
        if self.box is not None:
            self.box.measured(seconds, self.total or 100)

    def _stop_if_asked(self) -> None:
        asked = self.processes.any(bool(stop_request))
        if asked and self.state.step < (self.total or math.inf):
            self.saver.save(f"step_{self.state.step}")
            raise Interrupted(f"saved at step {self.state.step}: continue with `make resume`")

    def take_state(self, state: TrainState) -> None:
        """Go on from the counters of a checkpoint."""
        self.state = self.saver.state = state

    # --- the plan -------------------------------------------------------------------------------

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
            wanted = self.box.wanted_total(step, total, self.limit or 10**12)
        (wanted,) = self.processes.share_numbers([wanted])
        if wanted < 0:
            return total
        name = "plan" if total is None else "replan"
        write = self.processes.is_main
        self.plan.record(name, step, write=write, total=wanted)
        self.metrics.event(name, step, self.clock.elapsed_s(), total=wanted)
        level = logging.INFO if total is None else logging.DEBUG
        log.log(level, "%s at step %d: %d steps in all", name, step, wanted)
        if total is None:
            self.saver.save(f"step_{step}")
        return wanted

    # --- when to do what ------------------------------------------------------------------------

    def is_log_due(self) -> bool:
        """Whether the last step is to be recorded."""
        return self.calendar.is_log_due(self.state.step, self.total)

    def is_validation_due(self) -> bool:
        """Whether to validate now; the last validation comes with `finish`."""
        since = self.state.step - self._last_validation
        return self.calendar.is_validation_due(self.state.step, self.total, since)

    def is_save_due(self) -> bool:
        """Whether to save now; rank 0's clock decides."""
        unsaved_s = self.clock.elapsed_s() - self.saver.last_save_s
        is_due = self.calendar.is_save_due(self.state.step, self.total, unsaved_s)
        return bool(self.processes.share_numbers([int(is_due)])[0])

    # --- what is done ---------------------------------------------------------------------------

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
        self._last_validation = self.state.step
        self.val_bpb = bpb = self.processes.share(bpb)
        self.metrics.log(self.state.step, self.clock.elapsed_s(), val_bpb=round(bpb, 6))
        log.info("step %d: %.4f bits per byte on %d held-out tokens", self.state.step, bpb, tokens)
        if self.box is not None and max_batches is None:
            self.box.evaluation_s = max(0.7 * self.box.evaluation_s, time.monotonic() - started)
        return bpb

    def finish(self) -> Path:
        """Validate and save at the end; return the final checkpoint."""
        final = self.saver.finish(self.validate())
        self.metrics.close()
        return final
