"""TensorBoard and Weights & Biases, with the names of metrics.jsonl. Neither can stop a run.

They are opened at the first record, so that a resumed run knows at which step it goes on.
"""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.files import read_json, write_json

WANDB_RUN = "wandb_run.json"
"""Holds the id under which a resumed run goes on."""
WANDB_START_S = 30
"""Seconds until a server that does not answer is given up."""

log = logging.getLogger(__name__)


class Tracker(ABC):
    """One place that numbers and samples are sent to."""

    name: str

    @abstractmethod
    def open(self, folder: Path, step: int) -> None:
        """Begin to write, or go on with `step`."""

    @abstractmethod
    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Send the numbers of a step."""

    @abstractmethod
    def samples(self, step: int, texts: Mapping[str, str]) -> None:
        """Send what the model said after each prompt."""

    @abstractmethod
    def close(self, summary: Mapping[str, Any]) -> None:
        """Send the numbers of the whole run and finish."""


class TensorBoard(Tracker):
    """Event files in `tensorboard/` of the run folder."""

    name = "TensorBoard"

    def open(self, folder: Path, step: int) -> None:
        """Later records of an earlier process are dropped when the files are read."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step or None)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write scalars (fp32: those in fp64 are not dropped when a resume does a step again)."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def samples(self, step: int, texts: Mapping[str, str]) -> None:
        """Write texts (Markdown there: the indentation makes them plain)."""
        for prompt, text in texts.items():
            plain = "\n".join(f"    {line}" for line in f"{prompt}{text}".splitlines())
            self._writer.add_text(f"sample/{prompt}", plain, step)

    def close(self, summary: Mapping[str, Any]) -> None:
        """Close the event file."""
        self._writer.close()


class WandB(Tracker):
    """A W&B run: online where WANDB_API_KEY is set, else in `wandb/` for `wandb sync`.

    The step is a value like the others: W&B's own counter refuses steps that a resume does again.
    """

    name = "W&B"

    def open(self, folder: Path, step: int) -> None:
        """Start the run, or go on with the one that this folder had."""
        import wandb

        place = folder / WANDB_RUN
        known = read_json(place)["id"] if step and place.is_file() else None
        online = bool(os.environ.get("WANDB_API_KEY"))
        self._table = wandb.Table
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "lumi"),
            name=folder.name,
            dir=str(folder),
            id=known,
            resume="allow" if online else None,
            mode="online" if online else "offline",
            settings=wandb.Settings(init_timeout=WANDB_START_S, console="off", silent=True),
        )
        write_json(place, {"id": self._run.id})
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Send one row."""
        self._run.log({"step": step, **numbers})

    def samples(self, step: int, texts: Mapping[str, str]) -> None:
        """Send a table of prompts and texts."""
        table = self._table(columns=["prompt", "text"], data=[list(row) for row in texts.items()])
        self._run.log({"step": step, "samples": table})

    def close(self, summary: Mapping[str, Any]) -> None:
        """Send the summary and finish."""
        self._run.summary.update(dict(summary))
        self._run.finish()


class Trackers:
    """Hands records to each tracker; one that fails is left out from then on, said once."""

    def __init__(self, folder: Path, members: Sequence[Tracker]) -> None:
        self._folder, self._members, self._is_open = folder, list(members), False

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Send the numbers of a step."""
        self._open(step)
        self._each(lambda tracker: tracker.log(step, numbers))

    def samples(self, step: int, texts: Mapping[str, str]) -> None:
        """Send what the model said after each prompt."""
        self._open(step)
        self._each(lambda tracker: tracker.samples(step, texts))

    def close(self, summary: Mapping[str, Any]) -> None:
        """Finish them all, with the numbers of the whole run."""
        if self._is_open:
            self._each(lambda tracker: tracker.close(summary))
        self._members = []

    def _open(self, step: int) -> None:
        if not self._is_open:
            self._is_open = True
            self._each(lambda tracker: tracker.open(self._folder, step))

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for tracker in list(self._members):
            try:
                act(tracker)
            except Exception as error:  # noqa: BLE001 - whatever it raises, training goes on
                reason = " ".join(str(error).split())[:160] or type(error).__name__
                log.warning("%s failed (%s): the run goes on without it", tracker.name, reason)
                self._members.remove(tracker)
