"""Settings of time-boxed sessions and of the pipeline."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from utils.config.base import StageConfig
from utils.config.kinds import FileOnly, NoVariable, Variable

SessionStage = Literal[
    "check", "prepare", "samples", "preflight", "pretrain", "sft", "dpo", "evaluate",
    "serve", "architecture",
]  # fmt: skip


class SessionConfig(StageConfig):
    """Run several stages inside a time box (sessions/NAME.json)."""

    name: NoVariable[str] = Field("quick", pattern=r"^[A-Za-z0-9_-]+$")
    """Name of the session."""
    description: NoVariable[str] = ""
    """What the session is for, in one sentence."""
    minutes: Annotated[PositiveFloat | None, Variable("SESSION_MINUTES")] = 30.0
    """Time box in minutes; null for none."""
    stages: NoVariable[tuple[SessionStage, ...]] = Field(
        ("prepare", "samples", "pretrain", "sft", "dpo", "evaluate"), min_length=1
    )
    """What runs, in order."""
    dataset_config: Annotated[Path, Variable("CONFIG")] = Path("config/datasets/pydocs.json")
    """Data set configuration (CONFIG)."""
    source: Annotated[Path | None, Variable("SRC")] = None
    """Own folder or file of texts instead of a data set configuration (SRC)."""
    shares: FileOnly[dict[Literal["pretrain", "sft", "dpo"], PositiveFloat]] = Field(
        {"pretrain": 0.66, "sft": 0.2, "dpo": 0.14}
    )
    """How the time left after the fixed costs is divided among the training stages."""
    model_sizes: NoVariable[tuple[str, ...]] = Field(
        ("nano", "tiny", "small", "base"), min_length=1
    )
    """Sizes the plan may choose from, smallest first."""
    flags: FileOnly[dict[SessionStage, dict[str, Any]]] = Field({})
    """Further settings of single stages, {"sft": {"num_train_epochs": 3}}."""
    sft_dataset: Path | None = None
    """Own conversations for SFT instead of the practice set (SFT_DATASET)."""
    dpo_dataset: Path | None = None
    """Own preference pairs for DPO instead of the practice set (DPO_DATASET)."""
    model_path: Path | None = None
    """Checkpoint for sessions that train none; the newest of dpo, sft, pretrain when unset."""
    eval_data_dir: Path | None = None
    """Local evaluation files for stage 05 (EVAL_DATA_DIR); the hub when unset."""
    runs_dir: NoVariable[Path] = Path("sessions/runs")
    """Parent of the session's log, summary and report."""
    work_dir: NoVariable[Path] = Path()
    """Parent of data/ and checkpoints/; every stage runs there."""
    seed: int = 42
    """Seed of every stage."""

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        if len(set(self.stages)) < len(self.stages):
            raise ValueError(f"stages {', '.join(self.stages)} name one stage twice")
        return self


class PipelineConfig(StageConfig):
    """Run all six stages one after the other, without a time box."""

    size: str = "tiny"
    """Model size: config/SIZE.json."""
    dataset_config: Annotated[Path, Variable("CONFIG")] = Path("config/datasets/pydocs.json")
    """Data set configuration (CONFIG)."""
    source: Annotated[Path | None, Variable("SRC")] = None
    """Own folder or file of texts instead of a data set configuration (SRC)."""
    sft_dataset: Path | None = None
    """Own conversations for SFT instead of the practice set (SFT_DATASET)."""
    dpo_dataset: Path | None = None
    """Own preference pairs for DPO instead of the practice set (DPO_DATASET)."""
    eval_data_dir: Path | None = None
    """Local evaluation files for stage 05 (EVAL_DATA_DIR); the hub when unset."""
    runs_dir: NoVariable[Path] = Path("sessions/runs")
    """Parent of the pipeline's log, summary and report."""
    seed: int = 42
    """Seed of every stage."""
    test: NoVariable[bool] = False
    """Try all six stages on a few hundred documents in a scratch folder, in a few minutes."""


class ResumeConfig(StageConfig):
    """Go on with the newest interrupted session or pre-training run."""

    runs_dir: Path = Path("sessions/runs")
    """Parent of the sessions."""
    checkpoints_dir: Annotated[Path, Variable("OUTPUT_DIR")] = Path("checkpoints/pretrain")
    """Parent of the pre-training runs."""


class StatusConfig(StageConfig):
    """List the sessions: state, time box, minutes used, result, report."""

    runs_dir: Path = Path("sessions/runs")
    """Parent of the sessions."""


class CleanupConfig(StageConfig):
    """Remove the folders of failed and interrupted sessions; finished ones always stay."""

    runs_dir: Path = Path("sessions/runs")
    """Parent of the sessions."""
    keep: int = Field(1, ge=0)
    """Newest failed or interrupted sessions that stay (make resume may want them)."""
    yes: bool = False
    """Remove; without it the folders are only listed."""


class AnswersConfig(StageConfig):
    """Let models answer held-out questions and write what they said as JSON."""

    model_paths: tuple[Path, ...] = Field((Path("checkpoints/sft"),), min_length=1)
    """Checkpoints or run folders."""
    heldout_path: Path | None = None
    """Conversations whose first user turns are asked; those the last model's run held out when
    unset."""
    output: Path = Path("answers.json")
    """File for {model: [{question, answer, stopped}]}."""
    num_questions: PositiveInt = 3
    """Questions asked, spread evenly over the held-out set."""
    max_new_tokens: PositiveInt = 128
    """Longest answer, in tokens."""
    max_minutes: PositiveFloat | None = None
    """Time box; questions that do not fit are left out."""
    cpu: bool = False
    """Run on the CPU even where there is a GPU."""
