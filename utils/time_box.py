"""Seconds since a process began, and the time box of a stage that counts them.

Imports count against a time box, so the clock starts with the process. Knows nothing about what the
time is used for.
"""

import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil


def process_age_s() -> float:
    """Return the seconds since this process was started."""
    stat, uptime = Path("/proc/self/stat"), Path("/proc/uptime")
    if stat.is_file() and uptime.is_file():  # to the tick; psutil's boot time is in whole seconds
        ticks = int(stat.read_text().rpartition(")")[2].split()[19])
        age_s = float(uptime.read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    else:
        age_s = time.time() - psutil.Process().create_time()
    return min(3600.0, max(0.0, age_s))


@dataclass
class Clock:
    """Seconds a run has used, counted from the start of the process, earlier processes included."""

    used_before_s: float = 0.0
    born: float = field(default_factory=lambda: time.monotonic() - process_age_s())

    def elapsed_s(self) -> float:
        """Return the seconds used so far."""
        return self.used_before_s + time.monotonic() - self.born


@dataclass
class TimeBox:
    """The minutes a stage may take from the start of its process; None never ends."""

    minutes: float | None
    clock: Clock = field(default_factory=Clock)
    reserve_s: float = 0.0
    """Seconds kept for what comes after the main work."""

    @property
    def elapsed_s(self) -> float:
        """Seconds used so far."""
        return self.clock.elapsed_s()

    @property
    def left_s(self) -> float:
        """Seconds left in the time box (infinite without one)."""
        return math.inf if self.minutes is None else 60 * self.minutes - self.elapsed_s

    @property
    def work_left_s(self) -> float:
        """Seconds left for the main work: without the reserve."""
        return self.left_s - self.reserve_s
