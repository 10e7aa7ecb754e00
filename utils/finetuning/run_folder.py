"""The run folder of stages 03 and 04: run.json, metrics, bad rows and contaminated rows.

A folder that holds an earlier run is moved aside when the new one starts; the state in run.json
goes from "running" to "finished", "interrupted" or "failed".
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from utils.chat.rows import BadRow
from utils.config.training import AdapterConfig
from utils.errors import ConfigError, Interrupted, LumiError
from utils.files import append_line, move_aside
from utils.finetuning.contamination import Screening
from utils.lock import one_writer
from utils.training.records.metrics import MetricsLog, RunRecord

BAD_ROWS = "bad_rows.jsonl"
CONTAMINATED = "contaminated.jsonl"

log = logging.getLogger(__name__)


class AdapterRun:
    """What a run writes about itself. Nothing is written before `start`."""

    def __init__(self, stage: str, cfg: AdapterConfig) -> None:
        self.stage, self.cfg, self.folder = stage, cfg, cfg.output_dir
        self.summary: dict[str, Any] = {}
        """Numbers other programs read."""
        self._record: RunRecord | None = None
        self._metrics: MetricsLog | None = None
        self._clock = time.monotonic()

    def refuse_own_output(self, model: Path) -> None:
        """Refuse a model inside the output folder, which is about to be moved aside.

        Raises:
            ConfigError: it lies there.
        """
        if model.resolve().is_relative_to(self.folder.resolve()):
            raise ConfigError(
                f"the model {model} lies in --output_dir {self.folder}, which is moved aside "
                "before a new run: choose another --output_dir"
            )

    def start(
        self, bad: Sequence[BadRow], screening: Screening[Any], **environment: object
    ) -> None:
        """Move an earlier run aside, write the first state, the bad and the contaminated rows."""
        move_aside(self.folder)
        self._clock = time.monotonic()
        self._record = RunRecord(self.folder, self.stage, self.cfg.resolved())
        self._record.write(environment={**self._record.values["environment"], **environment})
        cfg = self.cfg
        self._metrics = MetricsLog(self.folder, tensorboard=cfg.tensorboard, wandb=cfg.wandb)
        place = self.folder / BAD_ROWS
        for row in bad:
            append_line(place, {"place": row.place, "reason": row.reason})
        if bad:
            example = f"{bad[0].place}: {bad[0].reason}"
            log.warning("%d bad row(s) left out, such as %s (all in %s)", len(bad), example, place)

        self._note(screening)

    def _note(self, screening: Screening[Any]) -> None:
        """Write what was found of the benchmarks, and say it where it is anything."""
        self.summary["decontamination"] = screening.findings or None
        place = self.folder / CONTAMINATED
        for record in screening.records:
            append_line(place, record)
        if screening.dropped:
            log.warning(
                "%d row(s) left out: they hold texts that stage 05 measures on (%s)",
                screening.dropped, place,
            )  # fmt: skip

    def log(self, step: int, **values: float | int | None) -> None:
        """Write the numbers of a step."""
        assert self._metrics is not None
        self._metrics.log(step, time.monotonic() - self._clock, **values)

    def event(self, name: str, step: int, **values: object) -> None:
        """Write something that happened: a plan, a change of plan."""
        assert self._metrics is not None
        self._metrics.event(name, step, time.monotonic() - self._clock, **values)

    def end(self, status: str, **more: object) -> None:
        """Write how the run ended, where it began at all."""
        if self._metrics is not None:
            self._metrics.close()
        if self._record is not None:
            self._record.end(status, **self.summary, **more)


@contextmanager
def recorded_run(stage: str, cfg: AdapterConfig) -> Iterator[AdapterRun]:
    """Hold the lock of the output folder and leave the right state behind, whatever happens.

    A run that cannot start leaves the earlier one where it is.

    Raises:
        LumiError: another process writes there.
    """
    with one_writer(cfg.output_dir):
        run = AdapterRun(stage, cfg)
        try:
            yield run
        except (Interrupted, KeyboardInterrupt):
            run.end("interrupted")
            raise
        except BaseException as error:
            run.end("failed", error=str(error) if isinstance(error, LumiError) else repr(error))
            raise
        run.end("finished")
