"""A pre-training run and its folder: continued, moved aside or new; resumed from where."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from utils.config.kinds import Kind
from utils.config.pretrain import PretrainConfig
from utils.errors import CheckpointError, DataError, Interrupted
from utils.files import fingerprint, move_aside
from utils.lock import one_writer
from utils.log import is_main_process
from utils.model.checkpoints import read_card
from utils.run_folder import RunFolder
from utils.training.checkpoints.rotation import check_disk, clear_leftovers
from utils.training.checkpoints.state import STATE_FILE, resumable
from utils.training.checkpoints.writer import Writer
from utils.training.devices.processes import world_size
from utils.training.inputs import Inputs
from utils.training.records.metrics import RunRecord

COUNTED = ("batch_size", "gradient_accumulation_steps", "reduce")
"""What the rows of an optimizer step are counted by."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """Where a run lives and what it goes on from."""

    inputs: Inputs
    folder: Path
    checkpoint: Path | None
    """Checkpoint to restore, or None for step 0."""
    is_continued: bool
    """Whether metrics and plan in the folder belong to this run."""
    settings_hash: str
    """Identity: equal hashes give equal bits for an equal plan."""
    record: RunRecord
    writer: Writer = field(default_factory=Writer)
    """Writes checkpoints while training goes on."""

    @property
    def cfg(self) -> PretrainConfig:
        """Settings with the vocabulary of the tokenizer."""
        return self.inputs.cfg

    @property
    def data_dirs(self) -> tuple[Path, ...]:
        """Prepared folders."""
        return self.inputs.data_dirs

    @property
    def length(self) -> int:
        """Tokens per training row."""
        return min(self.cfg.max_length or self.cfg.sequence_length, self.cfg.sequence_length)

    @property
    def step_tokens(self) -> int:
        """Places for tokens in an optimizer step over all processes."""
        return global_rows(self.cfg) * self.length

    @property
    def tokenizer_dir(self) -> Path:
        """Folder of the tokenizer."""
        return self.data_dirs[0] / "tokenizer"

    def card(self) -> dict[str, Any]:
        """Return what lumi.json of the checkpoints says."""
        return {
            "stage": "pretrain",
            "template": None,
            "tokenizer_sha256": self.inputs.manifest["tokenizer_sha256"],
            "settings": self.cfg.resolved(),
            "parent": None,
            "dataset": self.inputs.manifest["name"],
        }


@contextmanager
def open_run(inputs: Inputs, share: Callable[[Any], Any] = lambda value: value) -> Iterator[Run]:
    """Yield the run that `inputs` mean, its folder locked; run.json tells how it ended.

    `share` hands rank 0's decision to the other processes.

    Raises:
        LumiError: checkpoint or folder cannot be used.
    """
    folder = inputs.cfg.output_dir / inputs.cfg.model_name
    with ExitStack() as stack:
        if is_main_process():
            stack.enter_context(one_writer(folder))
            clear_leftovers(folder)
            check_disk(inputs.cfg, folder)
        rows = share(lasting_rows(inputs.cfg, folder) if is_main_process() else None)
        cfg = inputs.cfg.model_copy(update={"global_batch_size": rows})
        inputs = replace(inputs, cfg=cfg)
        identity = run_identity(inputs)
        start = choose_start(cfg, folder, identity) if is_main_process() else None
        checkpoint, is_continued = share(start)
        record = RunRecord(folder, "pretrain", cfg.resolved())
        record.write(settings_hash=identity)
        run = Run(inputs, folder, checkpoint, is_continued, identity, record)
        try:
            with run.writer:
                yield run
        except (Interrupted, KeyboardInterrupt):
            record.end("interrupted")
            raise
        except BaseException:
            record.end("failed")
            raise


def run_identity(inputs: Inputs) -> str:
    """Return the hash of all that decides the bits of a run besides its plan and the machine."""
    settings = inputs.cfg.resolved(Kind.SHAPING)
    return fingerprint({**settings, "rows": global_rows(inputs.cfg), "data": inputs.identity})


def global_rows(cfg: PretrainConfig) -> int:
    """Return the rows of one optimizer step over all processes.

    In canonical mode their number does not count: a run may go on with more or fewer of them.
    """
    if cfg.global_batch_size is not None:
        return cfg.global_batch_size
    times = 1 if cfg.reduce == "canonical" else world_size()
    return cfg.batch_size * cfg.gradient_accumulation_steps * times


def lasting_rows(cfg: PretrainConfig, folder: Path) -> int:
    """Return the rows of an optimizer step: those the run was begun with, where there are some.

    Flags count rows for each process; a run that goes on with more or fewer of them by the same
    settings keeps its global batch.
    """
    rows, earlier = global_rows(cfg), _earlier_settings(cfg, folder)
    kept = earlier.get("global_batch_size")
    compared = set(COUNTED)
    if cfg.resume_from_checkpoint is None:  # other settings begin another run
        compared |= set(cfg.names(Kind.SHAPING)) - {"global_batch_size"}
    is_same = all(earlier.get(name) == cfg.resolved()[name] for name in compared)
    if cfg.global_batch_size is not None or not is_same or kept in (None, rows):
        return rows
    log.warning(
        "the global batch stays %d rows, as the run was begun (--global_batch_size %d changes it)",
        kept, rows,
    )  # fmt: skip
    return int(kept)


def _earlier_settings(cfg: PretrainConfig, folder: Path) -> dict[str, Any]:
    """Return the settings of what is resumed or continued, if anything."""
    place = cfg.resume_from_checkpoint
    if place is not None and (place / STATE_FILE).is_file():
        return read_card(place).get("settings", {})
    try:
        found = RunFolder.read(place or folder)
    except DataError:  # none there, or a damaged one
        return {}
    return found.settings if place or not found.is_finished else {}


def choose_start(cfg: PretrainConfig, folder: Path, identity: str) -> tuple[Path | None, bool]:
    """Return (checkpoint to restore or None, whether `folder` is continued).

    Raises:
        CheckpointError: --resume_from_checkpoint names nothing that can be resumed.
    """
    if cfg.resume_from_checkpoint is not None:
        checkpoint = find_resume(cfg.resume_from_checkpoint)
        inside = checkpoint.resolve().parent == folder.resolve()
        if not inside:
            move_aside(folder)
        return checkpoint, inside
    if _is_unfinished(folder, identity):
        checkpoint = next(resumable(folder), None)
        log.info(
            "continuing the unfinished run in %s from %s",
            folder,
            checkpoint.name if checkpoint else "its beginning (no checkpoint yet)",
        )
        return checkpoint, True
    move_aside(folder)
    return None, False


def _is_unfinished(folder: Path, identity: str) -> bool:
    try:
        found = RunFolder.read(folder)
    except DataError:  # none there, or a damaged one
        return False
    return not found.is_finished and found.record.get("settings_hash") == identity


def find_resume(path: Path) -> Path:
    """Return the checkpoint that --resume_from_checkpoint means.

    Raises:
        CheckpointError: there is none that is whole.
    """
    if (path / STATE_FILE).is_file():
        return path
    checkpoint = next(resumable(path), None) if path.is_dir() else None
    if checkpoint is None:
        raise CheckpointError(
            f"{path} holds no checkpoint to resume: pass a step_N folder or a run folder that has "
            "one, or start anew without --resume_from_checkpoint"
        )
    return checkpoint
