"""Early stopping: ends a run whose validation no longer improves, as a recorded plan event.

While the rate is at its peak, a validation that stands still does not mean that nothing is left to
learn: most of the gain of warmup-stable-decay comes with the decay. So a stop there moves the start
of the decay to this step (the run ends where a run whose decay begins here ends), and in the decay,
where the best weights are behind, the run ends at once. best/ holds the best either way.

The decision is a function of the validations in metrics.jsonl up to the step.

Reference: on cooling down from any point of the plateau, Haegele et al., 2024.
"""

import logging
import math
from collections.abc import Sequence

from utils.run_folder import read_metrics
from utils.training.schedule.plan import EARLY_STOP
from utils.training.schedule.schedule import Schedule
from utils.training.trainer import Trainer

Validation = tuple[int, float]
"""(step, bits per byte)."""

log = logging.getLogger(__name__)


def stop_early(trainer: Trainer) -> None:
    """After a validation, plan the end of a run that no longer improves, if that is asked for."""
    cfg, step = trainer.run.cfg, trainer.state.step
    if cfg.early_stopping_patience is None or cfg.plan is not None:
        return
    total = trainer.total
    wanted = -1
    if trainer.processes.is_main and total is not None:
        schedule = trainer.plan.schedule(step)
        seen = validations(trainer)
        since = schedule.decay_start if schedule.phase(step) == "decay" else schedule.warmup
        recent = [one for one in seen if one[0] >= since]
        if is_stuck(recent, cfg.early_stopping_patience, cfg.early_stopping_min_delta):
            wanted = stopped_total(schedule, step)
    (wanted,) = trainer.processes.share_numbers([wanted])
    if total is None or wanted < 0 or wanted >= total:
        return
    trainer.decide(EARLY_STOP, total=wanted)
    what = "ending here" if wanted == step else f"decaying now, {wanted:,} steps in all"
    log.info("step %d: no better for %d validations: %s", step, cfg.early_stopping_patience, what)


def validations(trainer: Trainer) -> list[Validation]:
    """Return the validations of this run up to its step, those before a resume included."""
    checkpoint = trainer.run.checkpoint
    folders = [trainer.run.folder]
    if checkpoint is not None and not trainer.run.is_continued:
        folders.insert(0, checkpoint.parent)
    found = {
        record["step"]: record["val_bpb"]
        for folder in folders
        for record in read_metrics(folder)
        if record.get("val_bpb") is not None and 0 < record["step"] <= trainer.state.step
    }
    return sorted(found.items())


def is_stuck(seen: Sequence[Validation], patience: int, min_delta: float) -> bool:
    """Return whether the last `patience` validations are not `min_delta` below the best before."""
    best, waiting = math.inf, 0
    for _, bpb in seen:
        if bpb < best - min_delta:
            best, waiting = bpb, 0
        else:
            waiting += 1
    return waiting >= patience


def stopped_total(schedule: Schedule, step: int) -> int:
    """Return the length of a run that stops at `step`: with its decay, or at once inside it.

    A run of N steps decays from N x (1 - decay_ratio) on, so one that decays from `step` on has
    step / (1 - decay_ratio).
    """
    if schedule.phase(step) == "decay" or schedule.decay_ratio >= 1:
        return step
    return max(step + 1, round(step / (1 - schedule.decay_ratio)))
