"""Records of a training run: metrics.jsonl always, TensorBoard and W&B when asked, run.json.

The three carry the same names. Other training stages use `RunRecord` for their run.json too.
"""

import json
import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from utils.files import append_line, fingerprint, read_lines, write_atomic, write_json
from utils.log import is_main_process
from utils.machine.facts import package_versions
from utils.run_folder import METRICS_FILE, RUN_FILE
from utils.training.records.trackers import TensorBoard, Tracker, Trackers, WandB

PACKAGES = ("torch", "transformers", "accelerate", "trl", "peft", "sentencepiece", "numpy")


class MetricsLog:
    """Appends one JSON object per record to metrics.jsonl; only the main process writes."""

    def __init__(self, folder: Path, *, tensorboard: bool = False, wandb: bool = False) -> None:
        self.path = folder / METRICS_FILE
        self.used_wh = 0.0
        """Watt-hours that a resumed run had used."""
        self.last_validation: int | None = None
        """Step of the last validation that a resumed run keeps (0: none yet)."""
        self._is_main = is_main_process()
        wanted: list[Tracker] = [TensorBoard()] if tensorboard else []
        wanted += [WandB()] if wandb else []
        self._trackers = Trackers(folder, wanted if self._is_main else [])

    def log(self, step: int, time_s: float, **values: float | int | None) -> None:
        """Write the numbers of a step."""
        self._append({"step": step, "time_s": round(time_s, 3), **values})
        self._trackers.log(step, {name: v for name, v in values.items() if v is not None})

    def event(self, name: str, step: int, time_s: float, **values: Any) -> None:
        """Write something that happened: a plan, a resume, a skipped window."""
        self._append({"event": name, "step": step, "time_s": round(time_s, 3), **values})

    def samples(self, step: int, time_s: float, texts: Mapping[str, str]) -> None:
        """Write what the model said after each prompt."""
        for prompt, text in texts.items():
            self.event("sample", step, time_s, prompt=prompt, text=text)
        self._trackers.samples(step, texts)

    def _append(self, record: dict[str, Any]) -> None:
        if self._is_main:
            append_line(self.path, record)

    def rewind(self, step: int) -> float:
        """Drop what was recorded after `step`, which a resume does again.

        Returns the seconds the run had used, dropped work included.
        """
        records = read_lines(self.path)
        used_s = max((record.get("time_s", 0.0) for record in records), default=0.0)
        self.used_wh = max((record.get("energy_wh", 0.0) for record in records), default=0.0)
        if self._is_main and self.path.is_file():
            kept = [record for record in records if record["step"] <= step or _is_decision(record)]
            validated = [record["step"] for record in kept if "val_bpb" in record]
            self.last_validation = max(validated, default=0)
            lines = [json.dumps(record, sort_keys=True, ensure_ascii=False) for record in kept]
            write_atomic(self.path, "".join(f"{line}\n" for line in lines))
        return used_s

    def go_back(self, step: int) -> None:
        """Drop what was recorded after `step`, which this process does again."""
        used_wh = self.used_wh  # the meter goes on counting
        self.rewind(step)
        self.used_wh = used_wh

    def close(self, **summary: Any) -> None:
        """Finish TensorBoard and W&B; the latter shows the numbers of the whole run too."""
        self._trackers.close(summary)


def _is_decision(record: dict[str, Any]) -> bool:
    """Whether a record is of an event that the plan holds and a replay does not record again."""
    return record.get("event") in ("skip", "micro_batch", "gradient_checkpointing", "early_stop")


class RunRecord:
    """run.json of a training stage: what was asked, where it ran, how it ended."""

    def __init__(self, folder: Path, stage: str, settings: dict[str, Any]) -> None:
        self.path = folder / RUN_FILE
        self.values: dict[str, Any] = {
            "format": 1,
            "stage": stage,
            "status": "running",
            "started": _now(),
            "finished": None,
            "argv": sys.argv[1:],
            "settings": settings,
            "settings_hash": fingerprint(settings),
            "environment": environment(),
            "summary": {},
        }

    def write(self, **changes: Any) -> None:
        """Change some keys and write the file (main process only)."""
        self.values |= changes
        if is_main_process():
            write_json(self.path, self.values)

    def end(self, status: str, **summary: Any) -> None:
        """Write how the run ended: "finished", "interrupted" or "failed"."""
        self.write(status=status, finished=_now(), summary={**self.values["summary"], **summary})


def environment() -> dict[str, Any]:
    """Return the versions and the machine of this process."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "versions": package_versions(PACKAGES),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
