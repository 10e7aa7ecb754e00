"""Settings of time-boxed sessions and of the pipeline."""

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat

from utils.config.base import StageConfig

SessionStage = Literal[
    "check", "prepare", "samples", "preflight", "pretrain", "sft", "dpo", "evaluate",
    "architecture",
]  # fmt: skip


class SessionConfig(StageConfig):
    """A run of several stages inside a time box (sessions/NAME.json)."""

    name: str = "quick"
    """Name of the session."""
    description: str = ""
    """What the session is for, in one sentence."""
    minutes: PositiveFloat | None = 30.0
    """Time box in minutes; null for none."""
    stages: tuple[SessionStage, ...] = Field(
        ("prepare", "samples", "pretrain", "sft", "dpo", "evaluate"), min_length=1
    )
    """What runs, in order."""
    dataset_config: Path = Path("config/datasets/pydocs.json")
    """Data set configuration (CONFIG)."""
    source: Path | None = None
    """Own folder or file of texts instead of a data set configuration (SRC)."""
    shares: dict[str, PositiveFloat] = Field(
        {"pretrain": 0.66, "sft": 0.2, "dpo": 0.14}, json_schema_extra={"flag": False}
    )
    """How the time left after the fixed costs is divided among the training stages."""
    model_sizes: tuple[str, ...] = ("tiny", "small", "base")
    """Sizes the plan may choose from, smallest first."""
    eval_data_dir: Path | None = None
    """Local evaluation files for stage 05."""
    runs_dir: Path = Path("sessions/runs")
    """Parent of the session's log, summary and report."""
    work_dir: Path = Path()
    """Parent of data/ and checkpoints/ (tests use another one)."""
    seed: int = 42
    """Seed of every stage."""
