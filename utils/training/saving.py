"""Which checkpoints a run writes and keeps: step_N in rotation, the best one, the final one."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from utils.training.checkpoint import (
    TrainState,
    link_checkpoint,
    remove_old_steps,
    save_checkpoint,
)
from utils.training.optimizer import Optimizers
from utils.training.parallel import Processes
from utils.training.plan import Clock, Plan, TimeBox
from utils.training.run import Run

log = logging.getLogger(__name__)


@dataclass
class Saver:
    """Writes the state of a run into its folder; only the main process writes."""

    run: Run
    processes: Processes
    model: PreTrainedModel
    optimizers: Optimizers
    state: TrainState
    plan: Plan
    clock: Clock
    box: TimeBox | None = None
    last_save_s: float = 0.0
    """Time of the run at the last save that a resume can start from."""

    def save(self, name: str) -> Path:
        """Write the checkpoint `name` (step_N, best or final) and rotate the old step_N."""
        started, folder = time.monotonic(), self.run.folder / name
        self.state.elapsed_s = self.clock.elapsed_s()
        self.state.events = list(self.plan.events)
        if self.processes.is_main:
            save_checkpoint(
                folder,
                self.model,
                self.optimizers,
                self.state,
                tokenizer_dir=self.run.tokenizer_dir,
                card=self.run.card(),
            )
            remove_old_steps(self.run.folder, self.run.cfg.save_total_limit, self.state.step)
        self.processes.wait()
        if self.box is not None:
            self.box.save_s = max(0.7 * self.box.save_s, time.monotonic() - started)
        if name != "best":
            self.last_save_s = self.clock.elapsed_s()
        level = logging.DEBUG if name == "best" else logging.INFO
        log.log(level, "saved %s in %.1f s", folder, time.monotonic() - started)
        return folder

    def keep_best(self, bpb: float) -> None:
        """Save best/ when `bpb` is the lowest so far."""
        if self.state.best_bpb is not None and bpb >= self.state.best_bpb:
            return
        self.state.best_bpb, self.state.best_step = bpb, self.state.step
        self.save("best")

    def finish(self, bpb: float) -> Path:
        """Save the end of the run, validated at `bpb`; best/ is final/ when it is the best."""
        is_best = self.state.best_bpb is None or bpb <= self.state.best_bpb
        if is_best:
            self.state.best_bpb, self.state.best_step = bpb, self.state.step
        final = self.save("final")
        if is_best and self.processes.is_main:
            link_checkpoint(final, self.run.folder / "best")
        return final
