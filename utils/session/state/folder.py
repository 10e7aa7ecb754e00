"""The folder of one session: what was asked, planned, done; enough to go on after a crash.

`plan.json` holds settings, overrides, model plan and plan events; `summary.json` what came out so
far, rewritten after each stage; `state.json` who runs it and for how long, refreshed every few
seconds, so that time used before a crash is known afterwards.
"""

import contextlib
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from utils.config.session import SessionConfig
from utils.errors import DataError, LumiError
from utils.files import read_json, write_json
from utils.lock import Owner

BEAT_S = 5.0
"""Seconds between two notes of the time used; a crash loses at most this much of it."""
SILENT_S = 300.0
"""Without a beat for this long, a session of another host (or container) counts as dead."""
NUMBERS = ("pretrain", "sft", "dpo", "evaluation")
"""Parts of the summary that stages fill."""

log = logging.getLogger(__name__)


@dataclass
class Session:
    """One session's folder and its records in memory."""

    folder: Path
    plan: dict[str, Any]
    summary: dict[str, Any]
    state: dict[str, Any] = field(default_factory=lambda: {"segments": []})
    _last_beat: float = 0.0
    _clock: tuple[float, float] | None = None

    @classmethod
    def create(cls, cfg: SessionConfig, overrides: Mapping[str, Any]) -> "Session":
        """Return a new session with a folder of its own below `cfg.runs_dir`."""
        folder = _new_folder(cfg.runs_dir.absolute(), cfg.name)
        plan = {
            "format": 1,
            "settings": cfg.resolved(),
            "overrides": dict(overrides),
            "model": None,
            "events": [],
        }
        summary: dict[str, Any] = {
            "format": 1,
            "name": cfg.name,
            "session": folder.name,
            "status": "running",
            "started": _now(),
            "finished": None,
            "minutes_budget": cfg.minutes,
            "minutes_used": 0.0,
            "stages": [
                {"name": stage, "planned": None, "used": 0.0, "status": "waiting", "result": ""}
                for stage in ["measure", *cfg.stages, "report"]
            ],
            **{part: {} for part in NUMBERS},
            "machine": {"cpu": "", "cores": "", "gpus": []},
            "versions": {},
            "report": str(folder / "report.html"),
            "error": None,
        }
        session = cls(folder, plan, summary)
        session.save()
        return session

    @classmethod
    def open(cls, folder: Path) -> "Session":
        """Return the session that lies in `folder`.

        Raises:
            DataError: its records are missing or damaged.
        """
        try:
            plan = read_json(folder / "plan.json")
            summary = read_json(folder / "summary.json")
            state = read_json(folder / "state.json")
            return cls(folder.absolute(), plan, summary, state)
        except (KeyError, TypeError) as error:
            raise DataError(f"{folder}: damaged session records ({error}): remove it") from error

    @property
    def cfg(self) -> SessionConfig:
        """The settings it was started with."""
        return SessionConfig.build(self.plan["settings"])

    @property
    def log_file(self) -> Path:
        """Everything that the stages wrote."""
        return self.folder / "session.log"

    @property
    def box_s(self) -> float | None:
        """Seconds of the box, or None for none."""
        minutes = self.summary["minutes_budget"]
        return None if minutes is None else 60.0 * minutes

    @property
    def used_s(self) -> float:
        """Seconds used so far, those before an interruption counted."""
        return sum(segment["seconds"] for segment in self.state["segments"][:-1]) + self._now_s()

    @property
    def left_s(self) -> float:
        """Seconds left in the box (infinite without one)."""
        return float("inf") if self.box_s is None else self.box_s - self.used_s

    def _now_s(self) -> float:
        """Return the seconds of the running (else the last) segment."""
        if self._clock is not None:
            started, already = self._clock
            return already + time.monotonic() - started
        segments = self.state["segments"]
        return segments[-1]["seconds"] if segments else 0.0

    def stage(self, name: str) -> dict[str, Any]:
        """Return the summary's record of a stage."""
        return next(entry for entry in self.summary["stages"] if entry["name"] == name)

    def start_clock(self, already_s: float = 0.0) -> None:
        """Begin to count time, `already_s` of which have passed; we are the runner from now on."""
        self.state["segments"].append({"started": _now(), "seconds": already_s})
        self.state |= asdict(Owner.this_process())
        self._clock = (time.monotonic(), already_s)
        self.beat(force=True)

    def beat(self, *, force: bool = False) -> None:
        """Note the time used, now and then."""
        if force or time.monotonic() - self._last_beat >= BEAT_S:
            self._last_beat = time.monotonic()
            if self._clock is not None:
                self.state["segments"][-1]["seconds"] = round(self._now_s(), 2)
            write_json(self.folder / "state.json", self.state)

    def event(self, kind: str, **values: object) -> None:
        """Write down a decision of the plan before it takes effect."""
        record = {"event": kind, "minutes_used": round(self.used_s / 60, 3), **values}
        self.plan["events"].append(record)
        write_json(self.folder / "plan.json", self.plan)

    def save(self) -> None:
        """Write plan, summary and state."""
        self.summary["minutes_used"] = round(self.used_s / 60, 3)
        write_json(self.folder / "plan.json", self.plan)
        write_json(self.folder / "summary.json", self.summary)
        self.beat(force=True)

    def close(self, status: str, error: str | None = None) -> None:
        """Write the final status: finished, failed or interrupted."""
        self.summary |= {"status": status, "error": error, "finished": _now()}
        self.save()

    @property
    def is_alive(self) -> bool:
        """Whether the process that runs it is there; of another host's its last beat tells."""
        owner = Owner.read(self.state)
        if self.summary["status"] != "running" or owner is None:
            return False
        if owner.is_here:
            return owner.is_alive
        return time.time() - (self.folder / "state.json").stat().st_mtime < SILENT_S

    @property
    def status(self) -> str:
        """Its status as a person sees it: a running one without its process was interrupted."""
        status = self.summary["status"]
        return "interrupted" if status == "running" and not self.is_alive else status


def list_sessions(runs_dir: Path) -> list[Session]:
    """Return the sessions below `runs_dir`, oldest first; damaged records are named and skipped."""
    sessions = []
    for path in sorted(runs_dir.glob("*/summary.json")):
        try:
            sessions.append(Session.open(path.parent))
        except LumiError as error:
            log.warning("skipping %s", error)
    return sessions


def refuse_second_session(runs_dir: Path) -> None:
    """Make sure that no session is running here.

    Raises:
        LumiError: one is; its folder and process are named.
    """
    for session in list_sessions(runs_dir):
        if session.is_alive:
            raise LumiError(
                f"session {session.folder.name} is running (process {session.state.get('pid')}): "
                "wait for it, or stop it with Ctrl-C in its terminal"
            )


def _new_folder(runs_dir: Path, name: str) -> Path:
    """Create and return `runs_dir/<time>-name`; two in one second get a number."""
    stem = f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
    runs_dir.mkdir(parents=True, exist_ok=True)
    for number in range(1, 100):
        folder = runs_dir / (stem if number == 1 else f"{stem}-{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise LumiError(f"{runs_dir / stem} exists many times: wait a second and run again")


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
