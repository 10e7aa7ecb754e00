"""Which steps are logged, validated and saved: functions of the step and the plan."""

from dataclasses import dataclass

from utils.config.pretrain import PretrainConfig
from utils.training.schedule.plan import EVALUATIONS

LOG_POINTS = 100
"""Records of loss and learning rate per run at least, however short it is."""
EVALUATIONS_UNBOXED = 10
"""Validations of a run without a time box, where they do not cost too much."""
TRAINING_PER_VALIDATION = 3
"""Training tokens per validation token at least: validations then take a ninth of the time."""


@dataclass(frozen=True)
class Intervals:
    """What is due after a step; `total` is None while the length of the run is not yet known."""

    cfg: PretrainConfig

    def is_log_due(self, step: int, total: int | None) -> bool:
        """Every --logging_steps, at least `LOG_POINTS` times in a run, and on the last step."""
        every = min(self.cfg.logging_steps, max(1, (total or 1) // LOG_POINTS))
        return step % every == 0 or step == total

    def is_validation_due(
        self, step: int, total: int | None, since: int, *, is_boxed: bool, price: float
    ) -> bool:
        """Every --eval_steps, or `since` steps after the last one when that is a share of the run.

        The last step is left out, and what comes so shortly before it that it tells nothing new.
        `price` is what a validation scores, in training steps: a short run without a time box
        (which sizes its validations) gets fewer, but for one that is to be stopped early.
        """
        if total is None or step >= total:
            return False
        if self.cfg.eval_steps:
            return step % self.cfg.eval_steps == 0
        every = max(1, total // (EVALUATIONS if is_boxed else EVALUATIONS_UNBOXED))
        if not is_boxed and not self.cfg.early_stopping_patience:
            every = max(every, int(TRAINING_PER_VALIDATION * price))
        return since >= every and total - step >= every / 2

    def is_save_due(self, step: int, total: int | None, unsaved_s: float) -> bool:
        """Every --save_steps and --keep_every, and when --save_minutes are unsaved.

        Not on the last step, which is saved as final.
        """
        is_late = unsaved_s > 60 * self.cfg.save_minutes
        multiples = (self.cfg.save_steps, self.cfg.keep_every or self.cfg.save_steps)
        return (is_late or any(step % every == 0 for every in multiples)) and step != total
