"""Where things lie: the code's folder, and below a working folder the data, models and results.

The one place that decides in which order prepared data and models are looked for.
"""

from pathlib import Path

from utils.files import MANIFEST, is_moved_aside

ROOT = Path(__file__).resolve().parents[1]
"""The checkout: the folder of utils/, scripts/, config/ and evaluation/."""
SCRIPTS = ROOT / "scripts"
CONFIG = ROOT / "config"

PROCESSED = Path("data/processed")
CHECKPOINTS = Path("checkpoints")
PRETRAIN, SFT, DPO = (CHECKPOINTS / stage for stage in ("pretrain", "sft", "dpo"))
RESULTS = Path("evaluation/results")
SESSIONS = Path("sessions/runs")
"""These lie below the working folder, which need not be the checkout."""


def prepared_folders(root: Path = PROCESSED) -> list[Path]:
    """Return the prepared folders in `root`, the one that was written last first."""
    found = [path for path in root.glob(f"*/{MANIFEST}") if not path.parent.name.startswith(".")]
    newest_first = sorted(
        found, key=lambda path: (path.stat().st_mtime_ns, path.parent.name), reverse=True
    )
    return [path.parent for path in newest_first]


def run_folders(work_dir: Path = Path()) -> list[Path]:
    """Return the folders in which stages leave models, the most useful first.

    DPO's come before SFT's and these before pre-training's; below one stage the folder that was
    changed last goes first. Folders that were moved aside for a newer run are no candidates.
    """
    folders = []
    for stage in (DPO, SFT, PRETRAIN):
        inside = [path for path in (work_dir / stage).glob("*/") if _is_candidate(path)]
        folders += [work_dir / stage, *sorted(inside, key=_changed, reverse=True)]
    return [folder for folder in folders if folder.is_dir()]


def _is_candidate(folder: Path) -> bool:
    return folder.is_dir() and not folder.name.startswith(".") and not is_moved_aside(folder)


def _changed(folder: Path) -> tuple[int, str]:
    return folder.stat().st_mtime_ns, folder.name
