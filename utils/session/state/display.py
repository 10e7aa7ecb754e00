"""What a person sees while a session runs: a header per stage, its lines, the time left.

On a terminal the last progress line stays at the bottom with a clock; in a pipe every line is
written. Everything goes to stderr; stdout is for the final table.
"""

import re
import sys
import time
from typing import TextIO

from rich.console import Console
from rich.status import Status
from rich.text import Text

from utils.machine.child_process import LOG_PREFIX

PROGRESS_LINE = re.compile(r"\d+ ?% \(|tokens/s")
"""Lines of a stage that only say how far it is."""
WIDTH_WITHOUT_TERMINAL = 1000


class Display:
    """Shows the lines of one stage after the other with the time left in the box."""

    def __init__(self, stream: TextIO | None = None) -> None:
        out: TextIO = stream or sys.stderr  # pyright: ignore[reportAssignmentType]
        width = None if out.isatty() else WIDTH_WITHOUT_TERMINAL
        self._console = Console(file=out, highlight=False, soft_wrap=True, width=width)
        self._status: Status | None = None
        self._note = ""
        self._left = ""

    def say(self, text: str, style: str = "") -> None:
        """Write one line."""
        self._console.print(Text(text, style=style))

    def begin(self, header: str) -> None:
        """Start a stage: its header, and on a terminal the live line below."""
        self.say(header, "bold")
        self._note = "starting"
        if self._console.is_terminal:
            self._status = self._console.status("starting", refresh_per_second=2)
            self._status.start()

    def end(self) -> None:
        """End the live line of the stage."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def line(self, raw: str, left: str) -> None:
        """Show a line that the stage wrote; `left` is the time left, such as `12.3 min left`."""
        match = LOG_PREFIX.match(raw)
        text = raw[match.end() :] if match else raw
        level = match["level"] if match else "INFO"
        if PROGRESS_LINE.search(text) and self._status is not None:
            self._note = text
            self.tick(left)
            return
        mark = "" if level == "INFO" else f"{level.lower()}: "
        style = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}.get(level, "dim")
        self.say(f"  {left:>14} | {mark}{text}", style)

    def tick(self, left: str) -> None:
        """Refresh the time left in the live line."""
        if self._status is not None and (self._note + left) != self._left:
            self._left = self._note + left
            self._status.update(Text(f"{left} | {self._note}"))


class Clock:
    """Says how much time is left, in words, for a stage and for the box."""

    def __init__(self, stage_s: float | None, box_left_s: float) -> None:
        self._started = time.monotonic()
        self._stage_s, self._box_left_s = stage_s, box_left_s

    @property
    def box_left_s(self) -> float:
        """Seconds left in the box."""
        return self._box_left_s - (time.monotonic() - self._started)

    def left(self) -> str:
        """Return the time left in the box (or, without a box, the time used)."""
        if self._stage_s is None:
            return f"{(time.monotonic() - self._started) / 60:.1f} min so far"
        return f"{max(self.box_left_s, 0) / 60:.1f} min left"
