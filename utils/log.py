"""Logging and progress: one line per event on stderr, main process only. stdout is for results.

Knows nothing about what is logged: metrics files and plots belong to
`utils.training.records.metrics`.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
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

from utils.words import duration

PLAIN_INTERVAL_S = 15.0
"""Seconds between two progress lines where stderr is no terminal."""
MARK_INTERVAL_S = 5.0
"""Seconds between two of them at a good moment, such as every --logging_steps."""
REFRESH_S = 0.2
"""Seconds between two notes on a terminal."""
Note = str | Callable[[], str]
"""Text beside the progress; a function is called only when its text is shown."""

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
    """Units finished; those of an earlier process count for the percentage, not for the rate."""
    _progress: Progress | None = None
    _id: TaskID | None = None
    _started: float = field(default_factory=time.monotonic)
    _last_shown: float = field(default_factory=time.monotonic)
    _first: float = field(init=False)

    def __post_init__(self) -> None:
        self._first = self.done

    def advance(self, amount: float = 1.0, note: Note = "", *, is_mark: bool = False) -> None:
        """Add `amount` to the work done; `note` (loss, rate, ...) is shown beside the bar.

        In a pipe a line comes now and then, sooner at a mark.
        """
        self.done += amount
        if self._progress is not None and self._id is not None:
            self._refresh(self._progress, self._id, note)
            return
        interval_s = MARK_INTERVAL_S if is_mark else PLAIN_INTERVAL_S
        if time.monotonic() - self._last_shown >= min(interval_s, PLAIN_INTERVAL_S):
            self._last_shown = time.monotonic()
            log.info("%s", self.line(note))

    def _refresh(self, bars: Progress, row: TaskID, note: Note) -> None:
        if callable(note) and time.monotonic() - self._last_shown < REFRESH_S:
            bars.update(row, completed=self.done, total=self.total)
            return
        self._last_shown = time.monotonic()
        shown = ", ".join(part for part in (self._rate(), _text(note)) if part)
        bars.update(row, completed=self.done, total=self.total, note=shown)

    def line(self, note: Note = "") -> str:
        """Return the plain-text form: `name 40% (2 of 5 MB), 12 s, 0.2 MB/s, about 18 s left`."""
        elapsed_s = time.monotonic() - self._started
        unit = f" {self.unit}" if self.unit else ""
        done, left = f"{self.name} {self.done:,.0f}{unit}", ""
        if self.total:
            share = self.done / self.total
            done = f"{self.name} {share:.0%} ({self.done:,.0f} of {self.total:,.0f}{unit})"
            if self.done > self._first:
                left_s = elapsed_s * (self.total - self.done) / (self.done - self._first)
                left = f"about {duration(left_s)} left"
        parts = (done, duration(elapsed_s), self._rate(), left, _text(note))
        return ", ".join(part for part in parts if part)

    def _rate(self) -> str:
        elapsed_s = time.monotonic() - self._started
        done = self.done - self._first
        return f"{done / elapsed_s:,.3g} {self.unit}/s" if self.unit and elapsed_s else ""


def _text(note: Note) -> str:
    return note() if callable(note) else note


@contextmanager
def progress(
    name: str, total: float | None = None, unit: str = "", *, done: float = 0.0
) -> Iterator[Task]:
    """Yield a `Task` shown as a rich bar on a terminal and as a line now and then elsewhere."""
    if not (sys.stderr.isatty() and is_main_process()):
        yield Task(name, total, unit, done)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        row = bars.add_task(name, total=total, completed=int(done), note="")
        yield Task(name, total, unit, done, _progress=bars, _id=row)
