"""Looks at a working folder and says what is missing or wrong and what to run (session-debug)."""

from pathlib import Path

from utils.disk import free_bytes
from utils.errors import LumiError
from utils.files import is_moved_aside, read_json
from utils.machine.facts import find_compiler
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
    if not list((work_dir / "data" / "processed").glob("*/manifest.json")):
        found.append(("no prepared data", "make prepare (or make session-quick for all of it)"))
    if not (work_dir / "data" / "sft_dataset.json").is_file():
        found.append(("no data/sft_dataset.json for make sft", "make create-sample-datasets"))
    return found


def _checkpoints(work_dir: Path) -> list[Finding]:
    folder = work_dir / "checkpoints"
    found = []
    runs = [*folder.glob("pretrain/*/run.json"), *folder.glob("sft/run.json")]
    runs = [path for path in runs if not is_moved_aside(path.parent)]
    for path in [*runs, *folder.glob("dpo/run.json")]:
        try:
            status = read_json(path).get("status")
        except LumiError as error:
            found.append((str(error), f"remove {path}"))
            continue
        if status != "finished":
            found.append((f"{path.parent} is {status}", _remedy(path)))
    if not runs:
        found.append(("no checkpoint", "make pretrain-tiny (or make session-quick)"))
    return found


def _remedy(run: Path) -> str:
    stage = run.parent.name
    return f"make {stage}" if stage in ("sft", "dpo") else "make resume"
