"""Sessions whose stages are small programs: real processes, real files, no training."""

import sys
from pathlib import Path

import pytest

from utils.config.session import SessionConfig
from utils.machine.probe import Speed
from utils.session.runner import Tools
from utils.session.state.stages import StageContext

PROGRAM = Path(__file__).with_name("stage_program.py")
SPEED = Speed("cpu", 9e11, "bf16", 4.0, 16_000_000_000, {"cpu": "Test CPU", "cores": 2, "gpus": []})


class Bench:
    """A working folder in which sessions run with small programs as stages."""

    def __init__(self, folder: Path, prepared: Path) -> None:
        self.folder, self.prepared = folder, prepared
        self.order: dict[str, str] = {}
        """What goes wrong in which stage: fail, crash, hang, nothing."""
        self.minutes: dict[str, float | None] = {}
        """Box that each stage was given."""

    def command(self, stage: str, context: StageContext, minutes: float | None) -> list[str]:
        self.minutes[stage] = minutes
        how = self.order.get(stage, "works")
        paths = (context.folder, context.corpus_dir, self.prepared, context.pretrain_dir)
        return [sys.executable, str(PROGRAM), stage, how, *map(str, paths)]

    @property
    def tools(self) -> Tools:
        return Tools(self.command, lambda: SPEED)

    @property
    def calls(self) -> list[str]:
        """The stages that ran, in order."""
        path = self.folder / "calls.txt"
        return path.read_text().split() if path.is_file() else []

    def config(self, **values: object) -> SessionConfig:
        root = Path(__file__).resolve().parents[3]
        return SessionConfig.build(
            {
                "name": "trial",
                "minutes": 12,
                "model_sizes": ("tiny", "small", "base"),
                "dataset_config": root / "config" / "datasets" / "pydocs.json",
                "runs_dir": self.folder / "sessions" / "runs",
                "work_dir": self.folder,
                **values,
            }
        )


@pytest.fixture
def bench(tmp_path: Path, prepared_dir: Path) -> Bench:
    """See `Bench`."""
    return Bench(tmp_path, prepared_dir)
