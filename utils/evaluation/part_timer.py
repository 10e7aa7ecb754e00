"""The time box of an evaluation: parts that do not fit end early, with the reason."""

import time

from utils.errors import BudgetError, Interrupted
from utils.stage import stop_request
from utils.time_box import TimeBox

RESERVE_S = 5.0
"""Kept for writing the results."""
LEAST_SHARE, LEAST_TIME_S = 0.02, 3.0
"""A part's total time is projected once this share of it, and this time, are behind it."""


class PartTimer:
    """Ends a part of an evaluation that will not fit into the time box."""

    def __init__(self, minutes: float | None) -> None:
        self.box = TimeBox(minutes, reserve_s=RESERVE_S)
        self._part_started_s = time.monotonic()

    def begin(self) -> None:
        """Start the clock of a part.

        Raises:
            BudgetError: no time is left.
        """
        self._part_started_s = time.monotonic()
        self.check(0.0)

    def check(self, done: float) -> None:
        """Go on, or stop a part of which the share `done` is finished.

        Raises:
            BudgetError: the time box is used up, or the rest of the part would not fit into it.
            Interrupted: a signal asked to stop.
        """
        if stop_request:
            raise Interrupted("stopped by a signal")
        left_s, spent_s = self.box.work_left_s, time.monotonic() - self._part_started_s
        text = f"no time left in the time box of {self.box.minutes or 0:g} minutes"
        if left_s <= 0:
            raise BudgetError(text)
        if done >= LEAST_SHARE and spent_s >= LEAST_TIME_S:
            needed_s = spent_s / done * (1 - done)
            if needed_s > left_s:
                raise BudgetError(
                    f"{text}: it would take {needed_s:.0f} s more, {left_s:.0f} s are left"
                )
