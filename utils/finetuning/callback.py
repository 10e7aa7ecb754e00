"""The callback that ends TRL's loop by plan, time box or signal, and writes the metrics."""

import logging
import math
import time
from contextlib import ExitStack
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from utils.finetuning.run_folder import AdapterRun
from utils.finetuning.step_plan import SAFETY, StepPlan
from utils.log import Task, progress
from utils.stage import stop_request
from utils.time_box import TimeBox

log = logging.getLogger(__name__)

METRIC_NAMES = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "rewards/margins": "reward_margin",
    "rewards/accuracies": "accuracy",
}
"""Names of the trainer's metrics in ours."""


class PlanCallback(TrainerCallback):
    """Ends the run by plan, time box or signal, re-plans, and writes the metrics."""

    def __init__(self, run: AdapterRun, plan: StepPlan, box: TimeBox, tokens: list[int]) -> None:
        self.run, self.plan, self.box = run, plan, box
        self.tokens = tokens
        """Tokens of all rows up to the end of each optimizer step."""
        self.stopped_at: int | None = None
        self._values: dict[str, float] = {}
        """The metrics that were logged last."""
        self._started = self._mark = time.monotonic()
        self._marked_step = 0
        self._next_plan = 4
        self._exit = ExitStack()
        self._task: Task | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the clock and the progress line."""
        self._started = self._mark = time.monotonic()
        self._task = self._exit.enter_context(progress(self.run.stage, self.plan.total))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Show the step; stop at the planned end, at the end of the box, or on a signal."""
        step = state.global_step
        if self.box.minutes is not None and (step >= self._next_plan or self._plan_is_old()):
            self._replan(step)
        if self._task is not None:
            self._task.total = self.plan.total
            self._task.advance(1, self._state())
        if stop_request:
            self.stopped_at = step
        out_of_time = self.box.work_left_s < self._step_s(step)
        if stop_request or out_of_time or step >= self.plan.total:
            control.should_training_stop = True
            control.should_log = True
        if out_of_time and step < self.plan.total:
            self.run.event("out_of_time", step, planned=self.plan.total)
            log.warning("the machine got slower: stopping at step %d of %d", step, self.plan.total)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Write a line to metrics.jsonl."""
        if not logs or "loss" not in logs:
            return
        values = {ours: float(logs[name]) for name, ours in METRIC_NAMES.items() if name in logs}
        self._values = values
        elapsed_s = time.monotonic() - self._started
        tokens = self.tokens[min(state.global_step, len(self.tokens)) - 1]
        rate = round(tokens / max(elapsed_s, 1e-9), 1)
        self.run.log(state.global_step, **values, tokens=tokens, tokens_per_s=rate)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Take the progress line away."""
        self._exit.close()

    def _state(self) -> str:
        """Return what the progress line says of the model."""
        text = f"loss {self._values.get('loss', math.nan):.3f}"
        if "accuracy" in self._values:
            text += f", {self._values['accuracy']:.0%} of preferences moved the right way"
        return text

    def _plan_is_old(self) -> bool:
        """Tell whether a tenth of the time left has passed since the last look."""
        return time.monotonic() - self._mark > 0.1 * max(1.0, self.box.work_left_s)

    def _step_s(self, step: int) -> float:
        """Return seconds of a step: the mean of the whole run's and of those since the last plan.

        One slow step, or a fast stretch on a shared machine, must not turn the plan over.
        """
        now = time.monotonic()
        overall_s = (now - self._started) / max(1, step)
        if step == self._marked_step:
            return overall_s
        return (overall_s + (now - self._mark) / (step - self._marked_step)) / 2

    def _replan(self, step: int) -> None:
        step_s = self._step_s(step)
        fits = self.box.work_left_s * SAFETY / step_s
        total = step + int(min(self.plan.most - step, max(0, fits)))
        if self.plan.change(step, total):
            self.run.event("replan", step, total=self.plan.total, step_s=round(step_s, 4))
        self._mark, self._marked_step = time.monotonic(), step
        self._next_plan = step + max(4, min(step, (self.plan.total - step) // 4))
