"""The mechanics of pre-training: steps, validation, saving. The script owns the order of events.

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
from utils.log import progress
from utils.model.sizing import count_parameters
from utils.stage import stop_request
from utils.training.calendar import Calendar
from utils.training.checkpoint import (
    TrainState,
    link_checkpoint,
    remove_old_steps,
    save_checkpoint,
)
from utils.training.loss import language_model_loss
from utils.training.metrics import MetricsLog
from utils.training.optimizer import Optimizers, clip_gradients
from utils.training.parallel import Processes
from utils.training.plan import Clock, Plan, TimeBox
from utils.training.run import Run, global_rows
from utils.training.samples import sample_texts
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
    limit: int | None = None
    """Steps at most, by --max_steps or --num_train_epochs."""
    loss: float = math.nan
    """Mean loss of the last step in nats per token."""
    val_bpb: float | None = None
    tokens_per_s: float = 0.0
    _last_save_s: float = 0.0
    _last_validation: int = 0

    def __post_init__(self) -> None:
        self.calendar = Calendar(self.run.cfg)

    def steps(self) -> Iterator[int]:
        """Train; yield each finished step until the plan is done.

        Raises:
            Interrupted: SIGINT or SIGTERM arrived; the step was finished and saved.
            LumiError: the loss is not a number.
        """
        self._last_save_s, self._last_validation = self.clock.elapsed_s(), self.state.step
        with progress("pre-training", None) as task:
            task.done = self.state.step
            while (total := self._plan_step()) is None or self.state.step < total:
                task.total = total
                self.train_step()
                task.advance(1, self._note())
                yield self.state.step
                self._stop_if_asked()

    def train_step(self) -> None:
        """One optimizer step over the global batch."""
        started = time.monotonic()
        step, rows = self.state.step, global_rows(self.run.cfg)
        size, count = self.state.micro_batch, self.processes.count
        targets = rows * (self.run.length - 1)
        total = torch.zeros((), device=self.processes.device)
        for micro_step in range(rows // (size * count)):
            place = micro_step * count + self.processes.rank
            batch = self.data.batch(self.run.cfg.seed, step * rows + place * size, size)  # (B, T)
            seed_step(self.run.cfg.seed, step, place)
            with self.autocast():
                loss = language_model_loss(
                    self.model, batch.to(self.processes.device, non_blocking=True), targets
                )
            loss.backward()
            total += loss.detach()
        self.processes.sum_gradients(self.model)
        norm = clip_gradients(self.model, self.run.cfg.max_grad_norm)
        self.loss = self.processes.sum(total).item()
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

    def _note(self) -> str:
        parts = [f"loss {self.loss:.3f}", f"{self.tokens_per_s:,.0f} tokens/s"]
        if self.val_bpb is not None:
            parts.insert(1, f"{self.val_bpb:.3f} bits per byte")
        if self.box is not None:
            left_s = max(0.0, self.box.budget_s - self.clock.elapsed_s())
            parts.append(f"box {left_s / 60:.1f} min left")
        return ", ".join(parts)

    def _stop_if_asked(self) -> None:
        (asked,) = self.processes.share_numbers([int(bool(stop_request))])
        if asked and self.state.step < (self.total or math.inf):
            self.save(f"step_{self.state.step}")
            raise Interrupted(f"saved at step {self.state.step}: continue with `make resume`")

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
        if self.box is None or (step <= self.plan.planned_until and self.box.left_s > 0):
            return total
        wanted = -1
        if self.processes.is_main:
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
            self.save(f"step_{step}")
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
        unsaved_s = self.clock.elapsed_s() - self._last_save_s
        is_due = self.calendar.is_save_due(self.state.step, self.total, unsaved_s)
        return bool(self.processes.share_numbers([int(is_due)])[0])

    # --- what is done ---------------------------------------------------------------------------

    def log_step(self) -> None:
        """Record loss and learning rate of the last step."""
        self.metrics.log(
            self.state.step,
            self.clock.elapsed_s(),
            loss=round(self.loss, 6),
            learning_rate=self.learning_rate,
            tokens=self.state.tokens,
            tokens_per_s=round(self.tokens_per_s, 1),
        )

    def validate(self, max_batches: int | None = None) -> float:
        """Measure bits per byte, record it, and return it; cut short where the box would end."""
        started = time.monotonic()
        limit_s = self.box.budget_s - 1.5 * self.box.save_s - 1.0 if self.box else math.inf

        def is_over(batches: int) -> bool:
            return batches == max_batches or self.clock.elapsed_s() > limit_s

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

    def keep_best(self, bpb: float) -> None:
        """Save best/ when `bpb` is the lowest so far."""
        if self.state.best_bpb is not None and bpb >= self.state.best_bpb:
            return
        self.state.best_bpb, self.state.best_step = bpb, self.state.step
        self.save("best")

    def save(self, name: str) -> Path:
        """Write the checkpoint `name` (step_N, best or final) and rotate the old step_N."""
        started, folder = time.monotonic(), self.run.folder / name
        self.state.elapsed_s = self.clock.elapsed_s()
        self.state.events = list(self.plan.events)
        if self.processes.is_main:
            save_checkpoint(
                folder,
                self.model,
                self.optimizers,
                self.state,
                tokenizer_dir=self.run.tokenizer_dir,
                card=self.run.card(),
            )
            remove_old_steps(self.run.folder, self.run.cfg.save_total_limit, self.state.step)
        self.processes.wait()
        if self.box is not None:
            self.box.save_s = max(0.7 * self.box.save_s, time.monotonic() - started)
        if name != "best":
            self._last_save_s = self.clock.elapsed_s()
        level = logging.DEBUG if name == "best" else logging.INFO
        log.log(level, "saved %s in %.1f s", folder, time.monotonic() - started)
        return folder

    def finish(self) -> Path:
        """Validate and save at the end; best/ is final/ when it is the best."""
        bpb = self.validate()
        is_best = self.state.best_bpb is None or bpb <= self.state.best_bpb
        if is_best:
            self.state.best_bpb, self.state.best_step = bpb, self.state.step
        final = self.save("final")
        if is_best and self.processes.is_main:
            link_checkpoint(final, self.run.folder / "best")
        self.metrics.close()
        return final

    def sample(self) -> None:
        """Record what the model says after the fixed prompts."""
        if not self.processes.is_main:
            return
        with self.autocast():
            texts = sample_texts(
                self.model, self.run.data_dirs[0], self.run.tokenizer_dir, self.run.cfg.seed
            )
        for prompt, text in texts.items():
            time_s = self.clock.elapsed_s()
            self.metrics.event("sample", self.state.step, time_s, prompt=prompt, text=text)

    def summary(self) -> dict[str, float | int | None]:
        """Return the numbers of a finished run."""
        return {
            "parameters": count_parameters(self.run.cfg).total,
            "tokens": self.state.tokens,
            "steps": self.state.step,
            "val_bpb": self.val_bpb,
            "best_step": self.state.best_step,
            "seconds": round(self.clock.elapsed_s(), 1),
            "tokens_per_s": round(self.tokens_per_s, 1),
        }
