"""Copies configurations and final checkpoints into backups/DATE (`make backup`).

python -m utils.session.backup

The copy is there whole or not at all, carries a manifest and is read back before it is named.
Knows nothing about what a checkpoint means.
"""

import logging
import shutil
import sys
from datetime import datetime
from pathlib import Path

from utils import words
from utils.checkout import CHECKPOINTS
from utils.config.machine import BackupConfig
from utils.disk import free_bytes
from utils.errors import BudgetError, DataError
from utils.files import (
    MANIFEST,
    atomic_folder,
    folder_damage,
    verify_folder,
)
from utils.log import Task, progress
from utils.stage import run_stage
from utils.words import plural

KEPT_FOLDERS = ("final", "adapter")
"""Folders of a run that are worth a copy; steps and optimizer state are not."""
SPARE_SHARE = 0.05
"""Free space asked for beyond the copy itself: manifest and file-system blocks."""

log = logging.getLogger(__name__)


def main(cfg: BackupConfig) -> None:
    """Back up what there is and say where it lies."""
    folders = healthy(final_folders(cfg.checkpoints_dir))
    sources = {path: target_name(path, cfg) for path in files_of([cfg.config_dir, *folders])}
    if not folders:
        raise DataError(
            f"no final checkpoint below {cfg.checkpoints_dir}: nothing to back up; "
            "train one first, for example with `make session-quick`"
        )
    size = sum(path.stat().st_size for path in sources)
    check_space(cfg.backups_dir, size)
    target = new_name(cfg.backups_dir)
    with progress("backup", size) as task, atomic_folder(target, kind="backup") as folder:
        copy_files(sources, folder, task)
    verify_folder(target)
    names = ", ".join(path.as_posix() for path in folders)
    sys.stdout.write(f"{target}: {words.size(size)} in {plural(len(sources), 'file')}, verified\n")
    sys.stdout.write(f"holds {cfg.config_dir.as_posix()} and {names}\n")


def final_folders(root: Path) -> list[Path]:
    """Return the final/ and adapter/ folders below `root`; unfinished copies are left out."""
    found = [path for path in root.rglob("*") if path.name in KEPT_FOLDERS and path.is_dir()]
    inside = [path.relative_to(root).parts for path in found]
    return sorted(
        path
        for path, parts in zip(found, inside, strict=True)
        if not any(part.startswith(".") for part in parts)
        and not any(part in KEPT_FOLDERS for part in parts[:-1])
    )


def healthy(folders: list[Path]) -> list[Path]:
    """Return the folders that match their manifest; the others are named and left out."""
    good = []
    for folder in folders:
        damage = folder_damage(folder) if (folder / MANIFEST).is_file() else None
        if damage:
            log.warning("not backed up: %s", damage)
        else:
            good.append(folder)
    return good


def files_of(folders: list[Path]) -> list[Path]:
    """Return every file below the folders, in order."""
    return [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]


def target_name(path: Path, cfg: BackupConfig) -> Path:
    """Return where a file goes: config/... or checkpoints/... whatever the folders are called."""
    if path.is_relative_to(cfg.checkpoints_dir):
        return CHECKPOINTS / path.relative_to(cfg.checkpoints_dir)
    return Path("config") / path.relative_to(cfg.config_dir)


def check_space(place: Path, size: int) -> None:
    """Check that `size` bytes fit.

    Raises:
        BudgetError: they do not; the message says how much is missing.
    """
    needed, free = size * (1 + SPARE_SHARE), free_bytes(place.absolute())
    if free < needed:
        raise BudgetError(
            f"a backup needs {words.size(needed)} and {place} has {words.size(free)} free: "
            "free some space or pass --backups_dir on another disk"
        )


def new_name(parent: Path) -> Path:
    """Return a folder name with the date that is not taken yet."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    names = [stamp, *(f"{stamp}-{count}" for count in range(2, 1000))]
    return next(parent / name for name in names if not (parent / name).exists())


def copy_files(sources: dict[Path, Path], folder: Path, task: Task) -> None:
    """Copy each source to its name below `folder`."""
    for source, name in sources.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / name)
        task.advance(source.stat().st_size)


if __name__ == "__main__":
    sys.exit(run_stage(main, BackupConfig))
