"""Records of a training run: metrics.jsonl always, TensorBoard and W&B when asked, run.json.

The three carry the same names. Other training stages use `RunRecord` for their run.json too.
"""

import importlib.metadata
import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from utils.files import append_line, fingerprint, read_lines, write_atomic, write_json
from utils.log import is_main_process

METRICS_FILE = "metrics.jsonl"
RUN_FILE = "run.json"
PACKAGES = ("torch", "transformers", "accelerate", "trl", "peft", "sentencepiece", "numpy")


class MetricsLog:
    """Appends one JSON object per record to metrics.jsonl; only the main process writes."""

    def __init__(self, folder: Path, *, tensorboard: bool = False, wandb: bool = False) -> None:
        self.path = folder / METRICS_FILE
        self._is_main = is_main_process()
        self._writer: Any = None
        self._wandb: Any = None
        if self._is_main and tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder / "tensorboard"))
        if self._is_main and wandb:
            self._wandb = _start_wandb(folder)

    def log(self, step: int, time_s: float, **values: float | int | None) -> None:
        """Write the numbers of a step."""
        self._append({"step": step, "time_s": round(time_s, 3), **values})
        numbers = {name: value for name, value in values.items() if value is not None}
        if self._writer is not None:
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)

    def event(self, name: str, step: int, time_s: float, **values: Any) -> None:
        """Write something that happened: a plan, a sample, a resume."""
        self._append({"event": name, "step": step, "time_s": round(time_s, 3), **values})
        if self._writer is not None and name == "sample":
            self._writer.add_text("sample", f"{values['prompt']}{values['text']}", step)

    def _append(self, record: dict[str, Any]) -> None:
        if self._is_main:
            append_line(self.path, record)

    def rewind(self, step: int) -> float:
        """Drop what was recorded after `step`, which a resume does again.

        Returns the seconds the run had used, dropped work included.
        """
        records = read_lines(self.path)
        used_s = max((record.get("time_s", 0.0) for record in records), default=0.0)
        if self._is_main and self.path.is_file():
            kept = [record for record in records if record["step"] <= step]
            lines = [json.dumps(record, sort_keys=True, ensure_ascii=False) for record in kept]
            write_atomic(self.path, "".join(f"{line}\n" for line in lines))
        return used_s

    def close(self) -> None:
        """Flush TensorBoard and W&B."""
        if self._writer is not None:
            self._writer.close()
        if self._wandb is not None:
            self._wandb.finish()


def _start_wandb(folder: Path) -> Any:
    import wandb

    mode = "online" if os.environ.get("WANDB_API_KEY") else "offline"
    return wandb.init(project="lumi", name=folder.name, dir=str(folder), mode=mode)


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
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "versions": versions,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
