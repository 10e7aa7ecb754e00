"""Looks at a working folder and says what is missing or wrong and what to run (session-debug)."""

from pathlib import Path

from utils.checkout import PROCESSED, prepared_folders, run_folders
from utils.disk import free_bytes
from utils.errors import LumiError
from utils.machine.facts import find_compiler
from utils.run_folder import RUN_FILE, RunFolder
from utils.session.state.folder import list_sessions
from utils.words import size

LITTLE_DISK = 5_000_000_000
"""Bytes below which a run may not fit: corpus, shards and some checkpoints of a small model."""

Finding = tuple[str, str]


def diagnose(work_dir: Path, runs_dir: Path) -> list[Finding]:
    """Return (what was found, what to run) for each thing worth knowing, the first step first."""
    return [
        *_machine(work_dir),
        *_sessions(runs_dir),
        *_data(work_dir),
        *_checkpoints(work_dir),
    ] or [("everything is there", "make serve")]


def _machine(work_dir: Path) -> list[Finding]:
    found = []
    free = free_bytes(work_dir.absolute())
    if free < LITTLE_DISK:
        found.append((f"only {size(free)} of disk free", "make clean-data, or free some"))
    if find_compiler() is None:
        found.append(("no C compiler: training is slower without it", "install gcc or clang"))
    return found


def _sessions(runs_dir: Path) -> list[Finding]:
    sessions = [s for s in list_sessions(runs_dir) if "check" not in s.cfg.stages]
    if not sessions:
        return []
    last = sessions[-1]
    if last.status == "failed":
        return [(f"{last.folder.name}: {last.summary['error']}", "correct it, then make resume")]
    if last.status == "interrupted":
        return [(f"{last.folder.name} was interrupted", "make resume")]
    return []


def _data(work_dir: Path) -> list[Finding]:
    found = []
    if not prepared_folders(work_dir / PROCESSED):
        found.append(("no prepared data", "make prepare (or make session-quick for all of it)"))
    if not (work_dir / "data" / "sft_dataset.json").is_file():
        found.append(("no data/sft_dataset.json for make sft", "make create-sample-datasets"))
    return found


def _checkpoints(work_dir: Path) -> list[Finding]:
    found = []
    runs = [folder for folder in reversed(run_folders(work_dir)) if RunFolder.is_in(folder)]
    for folder in runs:
        try:
            run = RunFolder.read(folder)
        except LumiError as error:
            found.append((str(error), f"remove {folder / RUN_FILE}"))
            continue
        if not run.is_finished:
            found.append((f"{folder} is {run.status}", _remedy(folder.name)))
    if all(folder.name == "dpo" for folder in runs):
        found.append(("no checkpoint", "make pretrain-tiny (or make session-quick)"))
    return found


def _remedy(stage: str) -> str:
    return f"make {stage}" if stage in ("sft", "dpo") else "make resume"
