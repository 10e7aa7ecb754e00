"""Which checkpoints of a run stay: the last ones, every nth, and what a disk budget allows.

step_N rotate, oldest first; best and final stay. What a crash interrupts is found by the next run
(`clear_leftovers`).
"""

import logging
from pathlib import Path

from utils.config.pretrain import PretrainConfig
from utils.disk import disk_errors, free_bytes, fsync_path
from utils.errors import BudgetError
from utils.files import recover_folder, remove_folder
from utils.model.checkpoints import step_folders
from utils.model.sizing import checkpoint_bytes
from utils.training.checkpoints.state import read_step, step_number

GB = 1e9
LEAST_CHECKPOINTS = 4
"""final, best and two step_N: writing one of them never leaves fewer than two others."""
LEAST_ON_DISK = 2
"""The newest checkpoint and the one that is being written."""
SPARE_SHARE = 0.05
"""Free space asked for beyond the size of a checkpoint: file systems keep notes too."""

log = logging.getLogger(__name__)


def rotate(run: Path, keep: int, every: int | None = None) -> None:
    """Remove all but the last `keep` step_N, multiples of `every` left alone.

    Raises:
        LumiError: the disk does not let one go.
    """
    for folder in _rotating(run, every)[:-keep]:
        discard(folder)


def _rotating(run: Path, every: int | None) -> list[Path]:
    """Return the step_N that may be removed, oldest first."""
    return [folder for folder in step_folders(run) if not every or step_number(folder) % every]


def discard(folder: Path) -> None:
    """Remove a folder so that a crash leaves all of it or nothing under its name.

    Raises:
        LumiError: the disk does not let it go.
    """
    doomed = folder.with_name(f".tmp-{folder.name}")
    with disk_errors(folder):
        remove_folder(doomed)
        folder.rename(doomed)
        try:
            fsync_path(folder.parent)
        finally:
            remove_folder(doomed)


def leave_later(run: Path, step: int) -> None:
    """Rename checkpoints of later steps than `step`, so that nothing resumes from them by itself.

    They belong to a branch that was left by going back.

    Raises:
        LumiError: the disk does not let one go.
    """
    for folder in [*step_folders(run), run / "best", run / "final"]:
        if not folder.is_dir() or read_step(folder) <= step:
            continue
        left = folder.with_name(f"left-{folder.name}")
        log.warning("%s is of a run that was left: renamed to %s", folder, left.name)
        with disk_errors(folder):
            remove_folder(left)
            folder.rename(left)
            fsync_path(run)


def clear_leftovers(run: Path) -> None:
    """Finish or undo what a kill in the middle of a save has left in a run folder.

    Raises:
        LumiError: the disk does not let it go.
    """
    for path in [*run.glob(".old-*"), *run.glob(".tmp-*")]:
        with disk_errors(path):
            if path.is_dir():
                recover_folder(path.with_name(path.name[len(".old-") :]))
            else:
                path.unlink(missing_ok=True)


# --- space --------------------------------------------------------------------------------------


def folder_bytes(*folders: Path) -> int:
    """Return the bytes of the files below `folders`, files under several names counted once."""
    files = (path.stat() for folder in folders for path in folder.rglob("*") if path.is_file())
    return sum({stat.st_ino: stat.st_size for stat in files}.values())


def _checkpoints(run: Path) -> list[Path]:
    """Return all checkpoints of a run, those of left branches included."""
    return [*step_folders(run), run / "best", run / "final", *run.glob("left-*")]


def make_room(run: Path, needed: int, cfg: PretrainConfig) -> None:
    """Make sure that another checkpoint of `needed` bytes fits the disk and --disk_budget_gb.

    For the budget step_N are removed, oldest first; the newest checkpoint stays.

    Raises:
        BudgetError: it does not fit.
        LumiError: the disk does not let one go.
    """
    if cfg.disk_budget_gb is not None:
        _keep_budget(run, needed, cfg)
    if (free := free_bytes(run)) < (1 + SPARE_SHARE) * needed:
        raise BudgetError(
            f"a checkpoint needs {needed / 1e6:.0f} MB, {run} has {free / 1e6:.0f} MB free: "
            "free some space and continue with `make resume`"
        )


def _keep_budget(run: Path, needed: int, cfg: PretrainConfig) -> None:
    budget = (cfg.disk_budget_gb or 0) * GB
    rotating = _rotating(run, cfg.keep_every)
    newest = max([*step_folders(run), run / "best", run / "final"], key=read_step)
    for folder in [folder for folder in rotating if folder != newest]:
        if folder_bytes(*_checkpoints(run)) + needed <= budget:
            return
        log.info("%s is removed: --disk_budget_gb %g", folder, cfg.disk_budget_gb)
        discard(folder)
    if (used := folder_bytes(*_checkpoints(run))) + needed > budget:
        raise BudgetError(
            f"the checkpoints in {run} take {used / GB:.3g} GB, another one {needed / GB:.3g} GB, "
            f"--disk_budget_gb is {cfg.disk_budget_gb:g}: raise it, or move some of them away"
        )


def check_disk(cfg: PretrainConfig, run: Path) -> None:
    """Refuse a run whose fewest checkpoints fit neither the disk nor --disk_budget_gb.

    Raises:
        BudgetError: with the needed size.
    """
    size = checkpoint_bytes(cfg, cfg.optimizer)
    least = LEAST_CHECKPOINTS * size / GB
    if cfg.disk_budget_gb is not None and cfg.disk_budget_gb < least:
        raise BudgetError(
            f"--disk_budget_gb {cfg.disk_budget_gb:g} is too small: final, best and two step_N of "
            f"{cfg.model_name} take {least:.3g} GB: raise it, or take a smaller model"
        )
    needed = size if step_folders(run) else LEAST_ON_DISK * size
    if (free := free_bytes(run)) < needed:
        raise BudgetError(
            f"the checkpoints of {cfg.model_name} need {needed / GB:.3g} GB at least, {run} has "
            f"{free / GB:.3g} GB free: free some space, or choose another --output_dir"
        )
