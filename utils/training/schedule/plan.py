"""How long a run is: fixed steps, or as many as a time box holds by measured throughput.

Every decision is an event in plan.json, written before it takes effect and replayed on resume, so
the learning rate never depends on the clock: it is a function of the events and the step.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from utils.errors import BudgetError, ConfigError, DataError
from utils.files import read_json, write_json
from utils.run_folder import PLAN_FILE
from utils.time_box import Clock
from utils.training.schedule.events import checked_event
from utils.training.schedule.schedule import ENDLESS, Replan, Schedule, replay

EARLY_STOP = "early_stop"
CALIBRATION_STEPS = 4
"""Steps measured before the first plan; they are training steps like the others."""
MIN_STEPS = 10
"""A box that holds fewer steps is refused."""
RESERVE_FACTOR = 1.5
"""Slack on the measured times of the last validation and save: another process may wake up."""
MARGIN = 0.01
"""Share of the box that is never planned (interpreter shutdown, clock), one second at least."""
EXIT_SHARE = 0.2
"""Seconds that the interpreter takes to shut down, per second it took to start."""
EVALUATIONS = 6
"""Validations in a time box when --eval_steps is unset."""
SHORTER, LONGER = 0.015, 0.03
"""Relative change of the length that is worth an event."""

log = logging.getLogger(__name__)


@dataclass
class Plan:
    """The events of a run and the schedule that follows from them."""

    path: Path
    warmup: int | None
    decay_ratio: float
    events: list[dict[str, Any]] = field(default_factory=list)
    is_writer: bool = True
    """Whether this process writes plan.json: one of all does."""

    def schedule(self, step: int) -> Schedule:
        """Return the schedule that holds for `step`; before the first plan it only warms up."""
        lengths = (
            Replan(event["step"], event["total"], event.get("is_fresh", False))
            for event in self.events
            if "total" in event
        )
        return replay(lengths, step, self.warmup, self.decay_ratio)

    def total(self, step: int) -> int | None:
        """Return the length of the run as planned at `step`; None while it is not known."""
        totals = [e["total"] for e in self.events if "total" in e and e["step"] <= step]
        return totals[-1] if totals and totals[-1] < ENDLESS else None

    @property
    def planned_until(self) -> int:
        """Step of the last event about the length, -1 when there is none."""
        return max((event["step"] for event in self.events if "total" in event), default=-1)

    def all(self, name: str) -> list[dict[str, Any]]:
        """Return the events called `name` in the order in which they were decided."""
        return [event for event in self.events if event["event"] == name]

    def first_row(self, step: int, rows: int) -> int:
        """Return the first global row of `step` at `rows` a step, skipped windows left out."""
        skipped = sum(event["rows"] for event in self.all("skip") if event["step"] <= step)
        return step * rows + skipped

    def windows(self, step: int, rows: int) -> list[tuple[int, int]]:
        """Return first and end of the runs of global rows that the steps before `step` took."""
        skips = {event["step"] for event in self.all("skip") if event["step"] < step}
        firsts = ((a, b, self.first_row(a, rows)) for a, b in pairwise(sorted({0, step, *skips})))
        return [(first, first + (b - a) * rows) for a, b, first in firsts]

    def micro_batch(self, step: int) -> int | None:
        """Return the micro-batch that was decided for `step`; None before the first decision."""
        sizes = [e["micro_batch"] for e in self.all("micro_batch") if e["step"] <= step]
        return sizes[-1] if sizes else None

    def find(self, name: str, step: int = ENDLESS) -> dict[str, Any] | None:
        """Return the newest event called `name`, of those that hold for `step`."""
        known = (e for e in reversed(self.events) if e["event"] == name and e["step"] <= step)
        return next(known, None)

    def early_stop(self) -> int | None:
        """Return the length at which early stopping has ended the run, None when it has not."""
        for event in reversed(self.events):
            if event["event"] == EARLY_STOP:
                return event["total"]
            if event["event"] == "extend" or event.get("is_fresh"):
                return None  # made longer by hand
        return None

    def leave(self, step: int) -> None:
        """Forget how the length was planned anew after `step`, which is done again."""
        self.events = [e for e in self.events if e["event"] != "replan" or e["step"] <= step]

    def follow(self, events: Sequence[dict[str, Any]], step: int) -> None:
        """Take all events of another run; those before `step` must have been done here.

        What this run decided besides (on another machine, say) stays, and counts.

        Raises:
            ConfigError: this run was on another plan.
        """
        if any(event not in self.events for event in events if event["step"] < step):
            raise ConfigError(
                f"step {step} was not reached by the plan of --plan: pass another --output_dir"
            )
        self.events = [*events, *(event for event in self.events if event not in events)]
        self._write()

    def _write(self) -> None:
        if self.is_writer:
            write_json(self.path, {"format": 1, "events": self.events})

    def record(self, name: str, step: int, **values: Any) -> dict[str, Any]:
        """Add an event; it is on the disk when this returns."""
        event = {"event": name, "step": step, **values}
        self.events.append(event)
        self._write()
        return event

    def load(self, events: Sequence[dict[str, Any]], *, step: int) -> None:
        """Take the events of a checkpoint at `step` and the later ones of plan.json."""
        later = []
        if self.path.is_file():
            try:
                known = [checked_event(event) for event in read_json(self.path)["events"]]
                later = [event for event in known if event["step"] >= step]
            except (DataError, KeyError, TypeError, ValueError):
                log.warning("%s is damaged: the plan goes on from the checkpoint", self.path)
        self.events = [*events, *(event for event in later if event not in events)]


def read_events(run: Path) -> list[dict[str, Any]]:
    """Return the plan events of a run: its folder, or its plan.json.

    Raises:
        ConfigError: there is none, or it holds no plan of a whole run.
    """
    path = run / PLAN_FILE if run.is_dir() else run
    try:
        events = [checked_event(event) for event in read_json(path)["events"]]
        lengths = [event["total"] for event in events if "total" in event]
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"--plan {run} holds no plan: pass a run folder of stage 02") from error
    if not lengths or lengths[-1] >= ENDLESS:
        raise ConfigError(f"--plan {run} does not say how long that run was: let it finish first")
    return events


@dataclass
class StepBudget:
    """Decides how many steps fit into a time box.

    Costs are measured seconds of things beside training steps.
    """

    budget_s: float
    clock: Clock
    evaluation_s: float = 1.0
    save_s: float = 1.0
    save_every_s: float = 300.0
    save_every_steps: int = 10**9
    stall_s: float | None = None
    """Seconds of a save in the course of training, the whole one where it is not known."""
    startup_s: float = 0.0
    """Seconds until training began; the end of a process takes longer where its start did."""
    step_s: float = 0.0
    """Seconds of a step: a mean that forgets with the last tenth of the run."""
    measured_steps: int = 0
    last_step: int = -1
    """Step of the last decision."""

    def measured(self, seconds: float, total: int) -> None:
        """Take in the duration of one more step."""
        self.measured_steps += 1
        weight = max(0.02, min(0.2, 10 / total))
        self.step_s += (seconds - self.step_s) * weight if self.step_s else seconds

    @property
    def reserve_s(self) -> float:
        """Seconds kept for the last validation, the last save and the end of the process."""
        end_s = max(1.0, MARGIN * self.budget_s) + EXIT_SHARE * self.startup_s
        return RESERVE_FACTOR * (self.evaluation_s + self.save_s) + end_s

    @property
    def left_s(self) -> float:
        """Seconds left for steps and what goes on between them."""
        return self.budget_s - self.clock.elapsed_s() - self.reserve_s

    def steps_left(self, share_left: float = 1.0) -> int:
        """Return the steps that fit from now on; `share_left` of the validations are to come."""
        left_s = self.left_s
        extra_s = max(0.0, share_left * EVALUATIONS - 1) * self.evaluation_s
        stall_s = self.save_s if self.stall_s is None else self.stall_s
        extra_s += left_s / self.save_every_s * stall_s
        step_s = self.step_s + stall_s / self.save_every_steps
        return max(0, math.floor((left_s - extra_s) / step_s))

    def wanted_total(self, step: int, total: int | None, limit: int) -> int:
        """Return a new length of at most `limit` steps, or -1 to leave the plan as it is.

        Raises:
            BudgetError: the box holds too few steps.
        """
        if total is None:
            ready = self.measured_steps >= CALIBRATION_STEPS
            return min(limit, self.first_plan(step)) if ready else -1
        changed = self.replan(step, total)
        return -1 if changed is None or min(changed, limit) == total else min(changed, limit)

    def first_plan(self, step: int) -> int:
        """Return the total steps planned after calibration.

        Raises:
            BudgetError: the box holds too few steps; the message names the minimum.
        """
        fitting = self.steps_left()
        if fitting < MIN_STEPS:
            self.refuse((MIN_STEPS + EVALUATIONS) * self.step_s + 2 * self.evaluation_s)
        self.last_step = step
        return step + fitting

    def refuse(self, training_s: float) -> None:
        """Raise the error of a box too small.

        Raises:
            BudgetError: always.
        """
        needed_s = self.clock.elapsed_s() + 1.2 * training_s + self.reserve_s
        raise BudgetError(
            f"a time box of {self.budget_s / 60:.3g} min is too small here: starting up took "
            f"{self.clock.elapsed_s():.0f} s, the end needs {self.reserve_s:.0f} s: give "
            f"--max_minutes {math.ceil(needed_s / 6) / 10:.1f} at least, or a smaller model"
        )

    def replan(self, step: int, total: int) -> int | None:
        """Return a new total after `step` steps, or None when the plan still fits."""
        if not self.measured_steps and self.left_s > 0:
            return None  # just resumed
        if self.left_s < self.step_s:
            return step if step < total else None  # no time for another step
        fitting = step + self.steps_left(1 - step / total)
        change = fitting / total - 1
        near_end = total - step < 0.1 * total
        is_worth_it = change < (0 if near_end else -SHORTER) or change > LONGER
        spacing = max(1, total // (200 if near_end and change < 0 else 25))
        if not is_worth_it or step - self.last_step < spacing:
            return None
        self.last_step = step
        return max(step + 1, fitting)
