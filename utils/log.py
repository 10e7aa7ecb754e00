"""Logging and progress: one line per event on stderr, main process only. stdout is for results.

Knows nothing about what is logged: metrics files and plots belong to `utils.training.metrics`.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

PLAIN_INTERVAL_S = 15.0
"""Seconds between two progress lines where stderr is no terminal."""

log = logging.getLogger(__name__)


def is_main_process() -> bool:
    """Return whether this process is rank 0 (the only one that speaks and writes)."""
    return int(os.environ.get("RANK", "0")) == 0


def setup_logging(level: str = "INFO") -> None:
    """Send Lumi's log records to stderr; ranks other than 0 speak only from WARNING up."""
    logging.basicConfig(
        stream=sys.stderr,
        level=level if is_main_process() else "WARNING",
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        force=True,
    )
    noisy_ones = "httpx httpx2 httpcore httpcore2 urllib3 filelock fsspec datasets asyncio"
    for noisy in noisy_ones.split():
        logging.getLogger(noisy).setLevel("WARNING")


@dataclass
class Task:
    """Handle of one running piece of work; `advance` moves it on and may change its note."""

    name: str
    total: float | None
    unit: str = ""
    """What is counted: then a rate is shown."""
    done: float = 0.0
    _progress: Progress | None = None
    _id: TaskID | None = None
    _started: float = field(default_factory=time.monotonic)
    _last_line: float = field(default_factory=time.monotonic)

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        """Add `amount` to the work done; `note` (loss, rate, ...) is shown beside the bar."""
        self.done += amount
        if self._progress is not None and self._id is not None:
            shown = ", ".join(part for part in (self._rate(), note) if part)
            self._progress.update(self._id, completed=self.done, total=self.total, note=shown)
        elif time.monotonic() - self._last_line >= PLAIN_INTERVAL_S:
            self._last_line = time.monotonic()
            log.info("%s", self.line(note))

    def line(self, note: str = "") -> str:
        """Return the plain-text form: `name 40 % (2 of 5 MB), 12 s, 0.2 MB/s, about 18 s left`."""
        elapsed_s = time.monotonic() - self._started
        unit = f" {self.unit}" if self.unit else ""
        done, left = f"{self.name} {self.done:,.0f}{unit}", ""
        if self.total:
            share = self.done / self.total
            done = f"{self.name} {share:.0%} ({self.done:,.0f} of {self.total:,.0f}{unit})"
            if share > 0:
                left = f"about {elapsed_s * (1 - share) / share:.0f} s left"
        parts = (done, f"{elapsed_s:.0f} s", self._rate(), left, note)
        return ", ".join(part for part in parts if part)

    def _rate(self) -> str:
        elapsed_s = time.monotonic() - self._started
        return f"{self.done / elapsed_s:,.3g} {self.unit}/s" if self.unit and elapsed_s else ""


@contextmanager
def progress(name: str, total: float | None = None, unit: str = "") -> Iterator[Task]:
    """Yield a `Task` shown as a rich bar on a terminal and as a line now and then elsewhere."""
    if not (sys.stderr.isatty() and is_main_process()):
        yield Task(name, total, unit)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield Task(name, total, unit, _progress=bars, _id=bars.add_task(name, total=total, note=""))
