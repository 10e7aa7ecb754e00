"""Which checkpoints a run writes and keeps: step_N in rotation, the best one, the final one."""

import logging
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel

from utils.disk import disk_errors
from utils.files import atomic_folder, write_json
from utils.model.checkpoints import LUMI_FILE, save_model_files
from utils.training.checkpoint import (
    STATE_FILE,
    TrainState,
    check_space,
    link_checkpoint,
    remove_old_steps,
    save_checkpoint,
)
from utils.training.optimizer import Optimizers
from utils.training.parallel import Processes
from utils.training.plan import Clock, Plan, TimeBox
from utils.training.run import Run
from utils.training.sharding import is_sharded
from utils.training.shards import Share, state_tensors, whole_weights

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
        if is_sharded(self.model):
            self._save_sharded(folder, is_whole=name in ("best", "final"))
        elif self.processes.is_main:
            save_checkpoint(
                folder,
                self.model,
                self.optimizers,
                self.state,
                tokenizer_dir=self.run.tokenizer_dir,
                card=self.run.card(),
            )
        if self.processes.is_main:
            remove_old_steps(self.run.folder, self.run.cfg.save_total_limit, self.state.step)
        self.processes.wait()
        if self.box is not None:
            self.box.save_s = max(0.7 * self.box.save_s, time.monotonic() - started)
        if name != "best":
            self.last_save_s = self.clock.elapsed_s()
        level = logging.DEBUG if name == "best" else logging.INFO
        log.log(level, "saved %s in %.1f s", folder, time.monotonic() - started)
        return folder

    def _save_sharded(self, folder: Path, *, is_whole: bool) -> None:
        """Write a checkpoint of which each process writes a share; all must call it.

        Where it `is_whole`, the weights are brought together into a plain model folder.
        """
        main, wait = self.processes.is_main, self.processes.wait
        weights = whole_weights(self.model, keep=main) if is_whole else {}
        state = state_tensors(None if is_whole else self.model, self.optimizers)
        share = Share.of(state, self.processes.rank)
        partial = folder.with_name(f".tmp-{folder.name}")
        with ExitStack() as stack:
            if main:
                check_space(folder, [*weights.values(), *state.values()])
                manifest = {"kind": "checkpoint", "step": self.state.step}
                stack.enter_context(atomic_folder(folder, **manifest))
                self._describe(partial, weights)
            wait()  # the folder is there
            with disk_errors(partial):
                share.write(partial)
            wait()  # everybody's share is in it

    def _describe(self, partial: Path, weights: dict[str, Tensor]) -> None:
        """Write what is not spread over the processes."""
        card = self.run.card()
        if weights:
            tokenizer_dir = self.run.tokenizer_dir
            save_model_files(
                self.model, partial, tokenizer_dir=tokenizer_dir, card=card, state_dict=weights
            )
        else:
            write_json(partial / LUMI_FILE, {"format": 1, **card})
        write_json(partial / STATE_FILE, {"format": 1, **asdict(self.state)})

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
