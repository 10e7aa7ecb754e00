"""How many optimizer steps fit into the time box, and the learning rate that belongs to them.

The rate is a pure function of (plan events, step): linear warmup, then a straight line to zero at
the planned end; an event (step, total) bends the line from where it is to the new end. Events are
written to metrics.jsonl when they happen.
"""

import logging
import math
from dataclasses import dataclass, field

from utils.errors import BudgetError
from utils.time_box import TimeBox
from utils.training.schedule.schedule import Replan, replay

MIN_STEPS, FEW_STEPS = 2, 8
"""Fewer optimizer steps than the first are refused, fewer than the second are warned of."""
SAFETY = 0.95
"""Share of the time left that is planned; the rest is for a machine that gets slower."""

log = logging.getLogger(__name__)


def fitting_steps(box: TimeBox, step_s: float, wanted: int) -> int:
    """Return how many steps of `step_s` seconds fit into the time box, at most `wanted`.

    Raises:
        BudgetError: fewer than MIN_STEPS fit although more are wanted; the minimum is named.
    """
    if box.minutes is None:
        return wanted
    fits = box.work_left_s * SAFETY / step_s
    if fits < min(MIN_STEPS, wanted):
        needed_s = box.elapsed_s + box.reserve_s + min(MIN_STEPS, wanted) * step_s / SAFETY
        raise BudgetError(
            f"--max_minutes {box.minutes:g} is too small for this model and data on this "
            f"machine: give it at least {math.ceil(needed_s / 6) / 10:.1f} minutes"
        )
    if fits < min(FEW_STEPS, wanted):
        log.warning(
            "only %d of %d steps fit into the time box: the model will learn little", fits, wanted
        )
    return int(min(wanted, fits))


@dataclass
class StepPlan:
    """The planned number of optimizer steps and its changes."""

    most: int
    """Steps of all passes over the data, or --max_steps: never more."""
    warmup_ratio: float
    events: list[tuple[int, int]] = field(default_factory=list)
    """(step, planned total from this step on), in order; the first one has step 0."""

    @property
    def total(self) -> int:
        """Steps planned now."""
        return self.events[-1][1]

    @property
    def warmup(self) -> int:
        """Steps until the full rate is reached (by the first plan)."""
        return math.ceil(self.warmup_ratio * self.events[0][1])

    def change(self, step: int, total: int) -> bool:
        """Plan `total` steps from `step` on; return whether that is a change worth recording."""
        total = max(step + 1, min(self.most, total))
        if self.events and abs(total - self.total) <= 0.02 * self.total:
            return False
        self.events.append((step, total))
        return True

    def rate(self, step: int) -> float:
        """Return the share of the peak learning rate at optimizer step `step` (from 0)."""
        events = [Replan(*event) for event in self.events]
        return replay(events, step, self.warmup, decay_ratio=1.0, warmup_share=1.0).factor(step)
