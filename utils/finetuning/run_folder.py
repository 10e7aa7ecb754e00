"""The run folder of stages 03 and 04: run.json, metrics, bad, contaminated and held-out rows.

A folder that holds an earlier run is moved aside when the new one starts; the state in run.json
goes from "running" to "finished", "interrupted" or "failed".
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from utils.chat.heldout_files import (
    CONVERSATIONS,
    PREFERENCES,
    Origin,
    carry_heldout,
    write_heldout,
)
from utils.config.training import AdapterConfig
from utils.errors import ConfigError, Interrupted, LumiError
from utils.files import append_line, move_aside
from utils.finetuning.contamination import Screening
from utils.finetuning.training_rows import TrainingRows
from utils.lock import one_writer
from utils.machine.precision import choose_matmul_precision, is_bf16_faster
from utils.model.checkpoints import read_card
from utils.reading.documents import BadLine
from utils.time_box import TimeBox
from utils.training.records.metrics import MetricsLog, RunRecord

BAD_ROWS = "bad_rows.jsonl"
CONTAMINATED = "contaminated.jsonl"

log = logging.getLogger(__name__)
Result = TypeVar("Result")


class AdapterRun:
    """Writes what a run says about itself; nothing before `start`."""

    def __init__(self, stage: str, cfg: AdapterConfig) -> None:
        self.stage, self.cfg, self.folder = stage, cfg, cfg.output_dir
        self.box = TimeBox(cfg.max_minutes)
        self.summary: dict[str, Any] = {}
        """Numbers other programs read."""
        self.heldout: dict[str, Origin] = {}
        """Entry of each kind of held-out rows for lumi.json."""
        self._record: RunRecord | None = None
        self._metrics: MetricsLog | None = None
        self._clock = time.monotonic()
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def timed(self, name: str, work: Callable[..., Result], *values: Any) -> Result:
        """Return `work(*values)` and remember under `name` how long it took."""
        started = time.monotonic()
        result = work(*values)
        self._seconds[name] = time.monotonic() - started
        return result

    def reserve(self, more_s: float = 0.0) -> None:
        """Keep time for saving, merging, reloading and measuring out of the time box.

        Two loads stand for merging and reloading, 5 s for writing and syncing; all of it doubled
        where it was measured, for a machine that gets slower.
        """
        measuring_s = self._seconds["measure"] + more_s
        self.box.reserve_s = 5 + 2 * (2 * self._seconds["load"] + measuring_s)

    def start(self, rows: TrainingRows[Any], model: Path, device: torch.device) -> None:
        """Move an earlier run aside, write the first state and the rows that are not trained on.

        `model` is the adapter or checkpoint that training starts from.

        Raises:
            ConfigError: it lies in the output folder.
        """
        self._refuse_own_output(model)
        move_aside(self.folder)
        self._clock = time.monotonic()
        self._record = RunRecord(self.folder, self.stage, self.cfg.resolved())
        environment = self._record.values["environment"] | fast_paths(device)
        self._keep_heldout(rows, model)
        self._record.write(environment=environment, heldout=self.heldout)
        cfg = self.cfg
        self._metrics = MetricsLog(self.folder, tensorboard=cfg.tensorboard, wandb=cfg.wandb)
        self._note_bad(rows.bad)
        self._note(rows.screening)
        counts, unit = rows.counts, rows.kind.unit
        self.summary |= {unit: len(rows.train), f"heldout_{unit}": len(rows.heldout)}
        self.summary |= {"counts": counts, "dropped": counts["dropped"]}
        log.info("%s of %s on %s", self.stage.upper(), model, counts)

    def _refuse_own_output(self, model: Path) -> None:
        if model.resolve().is_relative_to(self.folder.resolve()):
            raise ConfigError(
                f"the model {model} lies in --output_dir {self.folder}, which is moved aside "
                "before a new run: choose another --output_dir"
            )

    def _keep_heldout(self, rows: TrainingRows[Any], model: Path) -> None:
        """Write the rows held out by this run, and carry along those of the model."""
        card, own = read_card(model), rows.kind.name
        for kind in {CONVERSATIONS, PREFERENCES} - {own}:
            if origin := carry_heldout(kind, model, card, self.folder):
                self.heldout[kind] = origin
        source = rows.heldout_source.as_posix()
        self.heldout[own] = write_heldout(self.folder, own, rows.heldout.as_json(), source)

    def _note_bad(self, bad: Sequence[BadLine]) -> None:
        place = self.folder / BAD_ROWS
        for row in bad:
            append_line(place, {"place": row.place, "reason": row.reason})
        if bad:
            example = f"{bad[0].place}: {bad[0].reason}"
            log.warning("%d bad row(s) left out, such as %s (all in %s)", len(bad), example, place)

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


def fast_paths(device: torch.device) -> dict[str, Any]:
    """Choose what is fast and right on this device, and return it for the record."""
    precision = choose_matmul_precision(device) if device.type == "cpu" else "highest"
    return {"device": str(device), "bf16": is_bf16_faster(device), "matmul_precision": precision}


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
