"""The time box of an evaluation: parts that do not fit end early, with the reason."""

import os
import time

import psutil

from utils.errors import BudgetError, Interrupted
from utils.stage import stop_request

RESERVE_S = 5.0
"""Kept for writing the results."""
LEAST_SHARE, LEAST_TIME_S = 0.02, 3.0
"""A part's total time is projected once this share of it, and this time, are behind it."""


class TimeBox:
    """Minutes counted from the start of the process; None never ends."""

    def __init__(self, minutes: float | None) -> None:
        self.minutes = minutes
        started_s = psutil.Process(os.getpid()).create_time()
        self._end_s = None if minutes is None else started_s + 60 * minutes - RESERVE_S
        self._part_started_s = time.time()

    def begin(self) -> None:
        """Start the clock of a part.

        Raises:
            BudgetError: no time is left.
        """
        self._part_started_s = time.time()
        self.check(0.0)

    def check(self, done: float) -> None:
        """Go on, or stop a part of which the share `done` is finished.

        Raises:
            BudgetError: the box is used up, or the rest of the part would not fit into it.
            Interrupted: a signal asked to stop.
        """
        if stop_request:
            raise Interrupted("stopped by a signal")
        if self._end_s is None:
            return
        now_s = time.time()
        left_s, spent_s = self._end_s - now_s, now_s - self._part_started_s
        if left_s <= 0:
            raise BudgetError(f"no time left in the box of {self.minutes:g} minutes")
        if done >= LEAST_SHARE and spent_s >= LEAST_TIME_S:
            needed_s = spent_s / done * (1 - done)
            if needed_s > left_s:
                raise BudgetError(
                    f"no time left in the box of {self.minutes:g} minutes: it would take "
                    f"{needed_s:.0f} s more, {left_s:.0f} s are left"
                )
