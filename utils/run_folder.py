"""Reads the folder of a training run: run.json, metrics.jsonl and the plan of stages 02, 03, 04.

Knows nothing about how they are written: see `utils.training.records.metrics`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.errors import DataError, LumiError
from utils.files import is_moved_aside, read_json, read_lines

RUN_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"
PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class RunFolder:
    """A training run on the disk, with its record as it was when it was read."""

    folder: Path
    record: dict[str, Any]
    """Content of run.json."""

    @classmethod
    def read(cls, folder: Path) -> "RunFolder":
        """Return the run in `folder`.

        Raises:
            DataError: run.json is missing or damaged.
        """
        record = read_json(folder / RUN_FILE)
        if not isinstance(record, dict):
            raise DataError(f"{folder / RUN_FILE}: no record of a run: remove it")
        return cls(folder, record)

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Return whether `folder` holds a run at all."""
        return (folder / RUN_FILE).is_file()

    @classmethod
    def all_in(cls, parent: Path) -> list[Path]:
        """Return the run folders in `parent`, those that were moved aside left out."""
        folders = sorted(path.parent for path in parent.glob(f"*/{RUN_FILE}"))
        return [folder for folder in folders if not is_moved_aside(folder)]

    @property
    def status(self) -> str | None:
        """One of "running", "finished", "interrupted", "failed"."""
        return self.record.get("status")

    @property
    def is_finished(self) -> bool:
        """Whether the run came to its end."""
        return self.status == "finished"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings it runs with."""
        return self.record.get("settings") or {}

    @property
    def numbers(self) -> dict[str, Any]:
        """The summary: what a finished run measured."""
        return self.record.get("summary") or {}

    @property
    def flags(self) -> list[str]:
        """The command line that it was started with, without the script."""
        return [str(flag) for flag in self.record.get("argv") or []]

    def is_of(self, session: Path) -> bool:
        """Return whether the session in that folder started it: its flags name the folder."""
        return any(session.name in flag for flag in self.flags)

    @property
    def modified(self) -> float:
        """When it last wrote something (Unix seconds)."""
        return max(path.stat().st_mtime for path in self.folder.iterdir())

    def finished_numbers(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return some numbers of a finished run.

        Raises:
            LumiError: it is unfinished, or a number is missing.
        """
        place = self.folder / RUN_FILE
        if not self.is_finished:
            raise LumiError(f"{place}: status {self.status!r}, not finished")
        if missing := [key for key in keys if key not in self.numbers]:
            raise DataError(f"{place}: the summary lacks {', '.join(missing)}")
        return {key: self.numbers[key] for key in keys}

    def plan_events(self) -> list[dict[str, Any]]:
        """Return the events of the plan, in order; none where the run has no plan."""
        path = self.folder / PLAN_FILE
        return read_json(path).get("events", []) if path.is_file() else []


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the whole records of metrics.jsonl in order; none where there is no such file."""
    return [line for line in read_lines(folder / METRICS_FILE) if isinstance(line, dict)]
