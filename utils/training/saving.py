"""When and how a run saves: step_N in rotation, the best one, the final one.

A save copies the state into memory of the host and goes on training; a thread writes. One write
goes on at a time: another save waits for it, so that each step_N of --save_steps comes to be; only
what --save_minutes asks for is put off. What ends a run is written before it goes on.
"""

import logging
import math
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel

from utils.disk import disk_errors
from utils.files import atomic_folder
from utils.model.checkpoints import LUMI_FILE, WEIGHTS_FILE, description_files
from utils.time_box import Clock
from utils.training.checkpoints.host_copy import HostCopy
from utils.training.checkpoints.rotation import leave_later, make_room, rotate
from utils.training.checkpoints.shares import Share, state_tensors, whole_weights
from utils.training.checkpoints.state import (
    STATE_FILE,
    Content,
    TrainState,
    link_checkpoint,
    save_checkpoint,
    state_text,
)
from utils.training.checkpoints.tensor_file import write_tensors
from utils.training.devices.fsdp import is_sharded
from utils.training.devices.processes import Processes
from utils.training.run import Run
from utils.training.schedule.intervals import Intervals
from utils.training.schedule.plan import Plan, StepBudget
from utils.training.step.optimizer import Optimizers

ASSUMED_BYTES_PER_S = 300e6
"""Speed of writing and hashing, where none has been measured yet (a plain SATA disk)."""

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
    box: StepBudget | None = None
    last_save_s: float = 0.0
    """Time of the run at the last save that a resume can start from."""
    _host: HostCopy | None = field(default_factory=HostCopy)
    """Buffers of the copies; None where they do not fit."""
    _newest: tuple[object, Path] | None = None
    """What was saved last, and where."""
    _description: dict[str, bytes] = field(default_factory=dict)
    """Files that are the same in each checkpoint."""
    _is_prepared: bool = False
    _write_s: float | None = None
    """Seconds of the last write, until the time box knows them."""
    _is_measured: bool = False

    def take_state(self, state: TrainState) -> None:
        """Save `state` from here on, which may be that of an earlier step."""
        self.state, self._newest = state, None

    def leave_later(self) -> None:
        """Leave the checkpoints beyond the step of the state; without best/ there is no best."""
        if self.processes.is_main:
            leave_later(self.run.folder, self.state.step)
        self.processes.wait()
        if not self.processes.share((self.run.folder / "best").is_dir()):
            self.state.best_step = self.state.best_bpb = None

    def is_due(self, total: int | None) -> bool:
        """Whether a save is due after this step of `total`.

        Raises:
            LumiError: a write that was under way has failed.
        """
        writer = self.run.writer
        writer.check()
        if self.processes.is_main and not self._is_prepared and not is_sharded(self.model):
            self._prepare()
        self._note_times()
        if self.box is not None and self.box.left_s < self.box.save_s:
            return False  # what ends the box would wait for it, and saves the same
        unsaved_s = 0.0 if writer.is_busy else self.clock.elapsed_s() - self.last_save_s
        return Intervals(self.run.cfg).is_save_due(self.state.step, total, unsaved_s)

    def save(self, name: str, *, wait: bool = False) -> Path:
        """Save the checkpoint `name` (step_N, best or final); with `wait` it is on the disk then.

        Raises:
            LumiError: this write or an earlier one has failed.
        """
        started, folder = time.monotonic(), self.run.folder / name
        self.state.elapsed_s = self.clock.elapsed_s()
        self.state.events = list(self.plan.events)
        if is_sharded(self.model):
            self._save_shares(folder, is_whole=name in ("best", "final"))
            self._write_s, self._host = time.monotonic() - started, None  # no stall besides
            self._note_times()
        elif self.processes.is_main:
            self._save(folder, wait=wait)
        self.processes.wait()
        if self.box is not None and not wait:
            self.box.stall_s = max(0.7 * (self.box.stall_s or 0), time.monotonic() - started)
        if name != "best":
            self.last_save_s = self.clock.elapsed_s()
        log.debug("%s: training stood still for %.3f s", name, time.monotonic() - started)
        return folder

    def keep_best(self, bpb: float) -> None:
        """Save best/ when `bpb` is the lowest so far."""
        if not bpb < (math.inf if self.state.best_bpb is None else self.state.best_bpb):
            return
        self.state.best_bpb, self.state.best_step = bpb, self.state.step
        self.save("best")

    def finish(self, bpb: float) -> Path:
        """Save the end of the run, validated at `bpb`; best/ is final/ when it is the best."""
        is_best = bpb <= (math.inf if self.state.best_bpb is None else self.state.best_bpb)
        if is_best:
            self.state.best_bpb, self.state.best_step = bpb, self.state.step
        final = self.save("final", wait=True)
        if is_best:
            self.save("best", wait=True)
        return final

    # --- all processes ---------------------------------------------------------------------------

    def _save_shares(self, folder: Path, *, is_whole: bool) -> None:
        """Write a checkpoint of which each process writes a share; all must call it, and wait.

        Where it `is_whole`, the weights are brought together into a plain model folder.
        """
        main, wait = self.processes.is_main, self.processes.wait
        weights = whole_weights(self.model, keep=main) if is_whole else {}
        state = state_tensors(None if is_whole else self.model, self.optimizers)
        share = Share.of(state, self.processes.rank)
        partial = folder.with_name(f".tmp-{folder.name}")
        with ExitStack() as stack:
            if main:
                tensors = [*weights.values(), *state.values()]
                leave_later(self.run.folder, self.state.step)
                make_room(self.run.folder, sum(t.numel() * 4 for t in tensors), self.run.cfg)
                stack.enter_context(atomic_folder(folder, kind="checkpoint", step=self.state.step))
                self._write_whole(partial, weights)
            wait()  # the folder is there
            with disk_errors(partial):
                share.write(partial)
            wait()  # everybody's share is in it
        if main:
            rotate(self.run.folder, self.run.cfg.save_total_limit, self.run.cfg.keep_every)

    def _write_whole(self, partial: Path, weights: dict[str, Tensor]) -> None:
        """Write what is not spread over the processes: without weights no model folder."""
        files = self._describe() if weights else {LUMI_FILE: self._describe()[LUMI_FILE]}
        for name, data in {**files, STATE_FILE: state_text(self.state).encode()}.items():
            (partial / name).write_bytes(data)
        if weights:
            write_tensors(partial / WEIGHTS_FILE, weights, {"format": "pt"})

    # --- the main process -----------------------------------------------------------------------

    def _save(self, folder: Path, *, wait: bool) -> None:
        writer = self.run.writer
        state = (self.state, self.state.step, self.state.best_step, len(self.state.events))
        if self._newest is None or self._newest[0] != state:
            self._write(folder, wait=wait)
            self._newest = state, folder
        elif (there := self._newest[1]) != folder:
            writer.submit(lambda: self._link(there, folder))
        if wait:
            writer.wait()
            self._note_times()

    def _write(self, folder: Path, *, wait: bool) -> None:
        writer = self.run.writer
        writer.wait()  # for the buffers, too
        content = Content.of(self.model, self.optimizers, self.state)
        if self.box is not None and not self._is_measured:
            self.box.save_s = max(self.box.save_s, content.num_bytes / ASSUMED_BYTES_PER_S)
        if wait or not self._can_copy(content):
            self._put(folder, content)
        else:
            assert self._host is not None
            copied = content.copied(self._host)
            writer.submit(lambda: self._put(folder, copied))

    def _can_copy(self, content: Content) -> bool:
        if self._host is not None and not self._host.fits(content.tensors):
            size = content.num_bytes / 1e9
            log.warning("no memory for a copy of %.3g GB: training waits for each save", size)
            self._host = None
        return self._host is not None

    def _prepare(self) -> None:
        """Have done in the background what the first save would wait for."""
        self._is_prepared = True
        content = Content.of(self.model, self.optimizers, self.state)
        host = self._host if self._can_copy(content) else None

        def prepare() -> None:
            self._describe()
            if host is not None:
                host.reserve(content.tensors)

        self.run.writer.submit(prepare)

    def _note_times(self) -> None:
        """Tell the time box what a save costs at its end."""
        write_s, self._write_s = self._write_s, None
        if self.box is None or write_s is None:
            return
        before_s = 0.7 * self.box.save_s if self._is_measured else 0.0
        stall_s = (self.box.stall_s or 0.0) if self._host is not None else 0.0
        self.box.save_s = max(before_s, stall_s + write_s)
        self._is_measured = True

    # --- in the thread that writes --------------------------------------------------------------

    def _put(self, folder: Path, content: Content) -> None:
        started, run = time.monotonic(), self.run
        leave_later(run.folder, content.step)
        make_room(run.folder, content.num_bytes, run.cfg)
        save_checkpoint(folder, content, self._describe())
        rotate(run.folder, run.cfg.save_total_limit, run.cfg.keep_every)
        self._write_s = seconds = time.monotonic() - started
        level = logging.DEBUG if folder.name == "best" else logging.INFO
        log.log(level, "saved %s in %.1f s", folder, seconds)

    def _link(self, there: Path, folder: Path) -> None:
        link_checkpoint(there, folder)
        rotate(self.run.folder, self.run.cfg.save_total_limit, self.run.cfg.keep_every)

    def _describe(self) -> dict[str, bytes]:
        """Return the files that are the same in each checkpoint of this run."""
        if not self._description:
            run = self.run
            scratch = run.folder / ".tmp-description"
            self._description = description_files(
                self.model, scratch, tokenizer_dir=run.tokenizer_dir, card=run.card()
            )
        return self._description
