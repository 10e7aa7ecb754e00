"""How many steps fit into the time box, and the learning rate that belongs to them.

The rate is a pure function of (plan events, step): linear warmup, then a straight line to zero at
the planned end; an event (step, total) bends the line from where it is to the new end. Events are
written to metrics.jsonl when they happen.
"""

import math
import os
import time
from dataclasses import dataclass, field

import psutil

from utils.errors import BudgetError

MIN_STEPS = 8
"""Fewer optimizer steps are not worth starting for."""
SAFETY = 0.95
"""Share of the time left that is planned; the rest is for a machine that gets slower."""


class TimeBox:
    """The wall clock of a stage, from the start of the process."""

    def __init__(self, minutes: float | None) -> None:
        self.minutes = minutes
        self.started = psutil.Process(os.getpid()).create_time()
        self.reserve_s = 0.0
        """Seconds kept for what comes after training."""

    @property
    def elapsed_s(self) -> float:
        """Seconds since the process started."""
        return time.time() - self.started

    @property
    def left_s(self) -> float:
        """Seconds left in the box (infinite without one)."""
        return math.inf if self.minutes is None else self.minutes * 60 - self.elapsed_s

    @property
    def training_left_s(self) -> float:
        """Seconds left for training (infinite without a box)."""
        return self.left_s - self.reserve_s

    def fitting_steps(self, step_s: float, wanted: int) -> int:
        """Return how many steps of `step_s` seconds fit, at most `wanted`.

        Raises:
            BudgetError: fewer than MIN_STEPS fit although more are wanted; the minimum is named.
        """
        fits = math.inf if self.minutes is None else self.training_left_s * SAFETY / step_s
        if fits < min(MIN_STEPS, wanted):
            needed_s = self.elapsed_s + self.reserve_s + min(MIN_STEPS, wanted) * step_s / SAFETY
            raise BudgetError(
                f"--max_minutes {self.minutes:g} is too small for this model and data on this "
                f"machine: give it at least {math.ceil(needed_s / 6) / 10:.1f} minutes"
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
        start, level, end = self.warmup, 1.0, self.events[0][1]
        if step < start:
            return (step + 1) / start
        for changed_at, total in self.events[1:]:
            if changed_at > step:
                break
            if changed_at > start:
                level *= max(0, end - changed_at) / max(1, end - start)
                start = changed_at
            end = total
        return level * max(0, end - step) / max(1, end - start)
