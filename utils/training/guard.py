"""What is done about a step that goes wrong: nothing of it stays, and the run goes on.

A window of data whose loss is no number or far too high is left out; where the weights themselves
are bad, or window after window is refused, the run goes back to its newest good checkpoint first;
a step that memory cannot hold is done again in smaller parts. Each decision is an event of the
plan, so that a step stays a function of (settings, seed, plan, step): {"event": "skip", "step": s,
"rows": n} moves the rows of step s and of all later ones by n. What counts against a step is a
function of plan and state, so that a resumed run decides alike.
"""

import logging
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from utils.data.tokens.rows import PackedDataset
from utils.errors import BudgetError, LumiError
from utils.machine.memory import release_memory, smaller_micro_batch
from utils.time_box import Clock
from utils.tokenizers.control_tokens import ControlIds
from utils.training.checkpoints.state import TrainState, load_checkpoint, read_step, resumable
from utils.training.devices.fsdp import from_own_rows, own_part, own_rows
from utils.training.devices.processes import Processes
from utils.training.records.metrics import MetricsLog
from utils.training.run import Run, global_rows
from utils.training.schedule.plan import Plan
from utils.training.skipped_windows import SkippedWindow, row_losses, write_report
from utils.training.step.first_weights import initial_weights
from utils.training.step.loss import RowForm
from utils.training.step.optimizer import Optimizers

SPIKE_WINDOW, SPIKE_MINIMUM = 64, 32
"""Losses the limit is made of, at most and at least."""
LEAST_SPREAD = 0.01
"""Share of the median loss that counts as one deviation at least."""
IN_A_ROW = 3
"""Windows refused one after the other that mean that the weights are at fault."""
MOST_INCIDENTS, WITHIN_STEPS = 5, 100
"""Windows refused within so many steps after which skipping is given up."""

log = logging.getLogger(__name__)


def spike_limit(losses: Sequence[float], threshold: float) -> float:
    """Return the loss above which a step is refused: median + `threshold` deviations.

    The deviation is 1.4826 times the median absolute one, which is the standard deviation of
    normal noise and does not see outliers (Rousseeuw and Croux, 1993). No limit (infinity) for
    threshold 0 or before `SPIKE_MINIMUM` losses.
    """
    if not threshold or len(losses) < SPIKE_MINIMUM:
        return math.inf
    middle = statistics.median(losses)
    spread = 1.4826 * statistics.median(abs(loss - middle) for loss in losses)
    return middle + threshold * max(spread, LEAST_SPREAD * middle)


def start_over(
    run: Run, data: PackedDataset, model: PreTrainedModel, optimizers: Optimizers
) -> None:
    """Give `model` the weights of step 0 and forget the state of `optimizers`."""
    values = initial_weights(run.cfg, data, ControlIds.of(run.inputs.manifest))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            local = values[name][slice(*own_rows(parameter))]
            parameter.copy_(from_own_rows(local, parameter))
    optimizers.forget()


@dataclass
class Guard:
    """Refuses bad steps and changes the plan for them; all processes decide alike."""

    run: Run
    processes: Processes
    model: PreTrainedModel
    data: PackedDataset
    form: RowForm
    optimizers: Optimizers
    plan: Plan
    clock: Clock
    metrics: MetricsLog
    autocast: Callable[[], AbstractContextManager]

    # --- the numbers of a step ------------------------------------------------------------------

    def objection(self, state: TrainState, loss: float, norm: float) -> str | None:
        """Return what speaks against updating the weights with a step, or None."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return f"the loss is {loss:.4g}, the gradient norm {norm:.3g}"
        limit = spike_limit(state.recent_losses, self.run.cfg.spike_threshold)
        if loss <= limit:
            return None
        if self._recent_skips(state.step) >= MOST_INCIDENTS:
            self._tell("step %d: the loss stays above %.3f: taken as it is", state.step + 1, limit)
            state.recent_losses.clear()
            return None
        return f"the loss is {loss:.3f}, above {limit:.3f} (--spike_threshold)"

    def note(self, state: TrainState, loss: float) -> None:
        """Remember the loss of a step that was done."""
        if self.run.cfg.spike_threshold:
            state.recent_losses = [*state.recent_losses, loss][-SPIKE_WINDOW:]

    def _recent_skips(self, step: int) -> int:
        return sum(event["step"] > step - WITHIN_STEPS for event in self.plan.all("skip"))

    def _skips_in_a_row(self, step: int) -> int:
        count = 0
        for event in reversed(self.plan.all("skip")):
            if event["step"] != step:
                break
            count += 1
        return count

    # --- a window of data that is refused -------------------------------------------------------

    def refuse(self, state: TrainState, loss: float, norm: float, reason: str) -> TrainState:
        """Leave out the window of the step; return the state to go on from.

        Raises:
            LumiError: too many were refused.
        """
        self.optimizers.drop_gradients()
        step, rows = state.step, global_rows(self.run.cfg)
        if self._recent_skips(step) >= MOST_INCIDENTS:
            raise LumiError(
                f"step {step + 1}: {reason}, after {MOST_INCIDENTS} windows were skipped: lower "
                "--learning_rate and --muon_learning_rate, then go on from the last good "
                f"checkpoint with --resume_from_checkpoint {self.run.folder}"
            )
        first = self.plan.first_row(step, rows)
        report = self._report(SkippedWindow(step, first, reason, loss, norm))
        is_stuck = self._skips_in_a_row(step) + 1 >= IN_A_ROW
        if is_stuck or not self._is_finite():
            state = self._go_back(state, step if is_stuck else step + 1)
        skipped = first + rows - self.plan.first_row(state.step, rows)
        self._record("skip", state, rows=skipped)
        self._tell(
            "step %d: %s: going on from step %d without %d rows of data; see %s",
            step + 1, reason, state.step, skipped, report,
        )  # fmt: skip
        return state

    def _report(self, skipped: SkippedWindow) -> Path:
        seed, first = self.run.cfg.seed, skipped.first_row
        count = global_rows(self.run.cfg)
        rows = [self.data.batch(seed, row, 1) for row in range(first, first + count)]  # (1, T) each
        losses = row_losses(self.model, rows, self.form, self.autocast)
        folder, tokenizer_dir = self.run.folder, self.run.tokenizer_dir
        if not self.processes.is_main:
            return folder
        return write_report(folder, skipped, rows, losses, tokenizer_dir)

    def _is_finite(self) -> bool:
        """Return whether weights and optimizer state are finite numbers."""
        tensors = [*self.model.parameters(), *self.optimizers.tensors().values()]
        is_bad = any(not bool(torch.isfinite(own_part(tensor)).all()) for tensor in tensors)
        return not self.processes.any(is_bad)

    # --- going back -----------------------------------------------------------------------------

    def _go_back(self, state: TrainState, before: int) -> TrainState:
        """Restore the newest good checkpoint of a step before `before`, or step 0."""
        found = self._restore(before)
        for name in ("settings_hash", "fast_paths", "environment"):
            setattr(found, name, getattr(state, name))
        self.plan.leave(found.step)
        self.metrics.go_back(found.step)
        return found

    def _restore(self, before: int) -> TrainState:
        for place in self._places(before):
            found = load_checkpoint(place, self.model, self.optimizers)
            if self._is_finite():
                return found
            self._tell("skipping %s: not all of its weights are finite numbers", place)
        start_over(self.run, self.data, self.model, self.optimizers)
        return TrainState()

    def _places(self, before: int) -> Iterator[Path]:
        """Yield the whole checkpoints of this run before a step, newest first."""
        if self.processes.is_main:
            self.run.writer.wait()
        found = resumable(self.run.folder) if self.processes.is_main else iter(())
        while place := self.processes.share(next(found, None)):
            if read_step(place) < before:
                yield place
        if self.run.checkpoint is not None and self.run.checkpoint.is_dir():
            yield self.run.checkpoint

    # --- memory ---------------------------------------------------------------------------------

    def follow_plan(self, state: TrainState) -> None:
        """Take micro-batch and checkpointing of activations as the plan has them for this step."""
        state.micro_batch = self.plan.micro_batch(state.step) or state.micro_batch
        wanted = any(e["step"] <= state.step for e in self.plan.all("gradient_checkpointing"))
        if wanted and not self.model.is_activation_checkpointing:
            self.model.activation_checkpointing_enable()

    def shrink(self, state: TrainState) -> None:
        """Halve the micro-batch from this step on; recompute activations where one row is too much.

        Raises:
            BudgetError: one row does not fit even so.
        """
        self.optimizers.drop_gradients()
        release_memory(self.processes.device)
        rows = global_rows(self.run.cfg) // self.processes.count
        size = smaller_micro_batch(rows, state.micro_batch)
        if size is not None:
            self._record("micro_batch", state, micro_batch=size)
            what = f"micro-batch {size} instead of {state.micro_batch}, the global batch stays"
        elif not self.model.is_activation_checkpointing:
            self._record("gradient_checkpointing", state)
            what = "activations are recomputed (--gradient_checkpointing), about a third slower"
        else:
            raise BudgetError(
                f"one row of {self.run.length} tokens does not fit into memory, even with its "
                "activations recomputed: lower --max_length, or take a smaller model"
            )
        self._tell("too little memory at step %d: %s", state.step + 1, what)
        self.follow_plan(state)

    def undo_update(self, state: TrainState) -> TrainState:
        """Go back from an update that ran out of memory half-way; return the state there."""
        found = self._go_back(state, state.step + 1)
        found.micro_batch = state.micro_batch
        self.shrink(found)
        return found

    def _tell(self, text: str, *values: object) -> None:
        """Warn once of what all processes decide alike."""
        if self.processes.is_main:
            log.warning(text, *values)

    def _record(self, name: str, state: TrainState, **values: int) -> None:
        self.plan.record(name, state.step, **values)
        self.metrics.event(name, state.step, self.clock.elapsed_s(), **values)
