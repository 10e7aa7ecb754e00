"""Settings of stage 05."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import PositiveFloat, PositiveInt, model_validator

from utils.config.base import StageConfig
from utils.config.kinds import (
    BySession,
    CommandLine,
    Indirect,
    Manner,
    OutputFolder,
    Shaping,
    StartingModel,
    TimeBox,
    Variable,
)


class EvaluateConfig(StageConfig):
    """Measure any checkpoint: likelihood benchmarks, held-out text, smoke prompts, preferences."""

    model_path: StartingModel[Path] = Path("checkpoints/dpo")
    """Checkpoint or run folder to evaluate."""
    data_dir: Annotated[
        Indirect[Path | None], Variable("EVAL_DATA_DIR"), BySession("use EVAL_DATA_DIR")
    ] = None
    """Folder with wikitext2/, boolq/, lambada/ files in the public formats; the hub when unset."""
    corpus_dir: Indirect[Path | None] = None
    """Prepared folder for held-out bits per byte and baselines; newest fitting one when unset."""
    sft_heldout_path: Indirect[Path | None] = None
    """Conversations for loss and stop rate; those the checkpoint's own run held out when unset."""
    dpo_heldout_path: Indirect[Path | None] = None
    """Pairs for preference accuracy; those the checkpoint's own run held out when unset."""
    output_dir: OutputFolder[Path | None] = None
    """Folder for evaluation_results.json and report.md (unset: evaluation/results/MODEL-DATE)."""
    run_name: Manner[str | None] = None
    """Name of the result folder below output_dir, or below evaluation/results."""
    max_boolq_samples: Shaping[PositiveInt | None] = None
    """BoolQ questions scored, from the start of the file (unset: 100, 50 fast, 200 detailed)."""
    max_lambada_samples: Shaping[PositiveInt | None] = None
    """LAMBADA passages scored, from the start of the file (unset: 100, 50 fast, 200 detailed)."""
    max_wikitext_tokens: Shaping[PositiveInt | None] = None
    """WikiText-2 tokens scored, in whole articles (unset: all, and only then comparable with
    published figures; 20,000 fast)."""
    detailed_output: Shaping[bool] = False
    """Score 200 samples of each benchmark and keep every item's record."""
    fast_mode: Shaping[bool] = False
    """Score 50 samples, parts of WikiText-2 and the held-out text, one smoke prompt a category."""
    skip_perplexity: Shaping[bool] = False
    """Leave out WikiText-2."""
    custom_prompts: Indirect[Path | None] = None
    """JSON file {category: [prompt, ...]} or [prompt, ...] instead of the shipped smoke prompts."""
    max_new_tokens: Shaping[PositiveInt] = 100
    """Longest smoke answer, in tokens."""
    max_minutes: TimeBox[PositiveFloat | None] = None
    """Time box, counted from the start of the process: what does not fit is reported as not run."""
    cpu: Manner[CommandLine[bool]] = False
    """Evaluate on the CPU even where there is a GPU."""
    seed: Shaping[int] = 42
    """Seeds the bootstrap intervals (answers are greedy)."""

    @model_validator(mode="after")
    def _modes_do_not_contradict(self) -> Self:
        if self.fast_mode and self.detailed_output:
            raise ValueError("fast_mode and detailed_output exclude each other: drop one")
        if self.run_name is not None and Path(self.run_name).name != self.run_name:
            raise ValueError(f"run_name {self.run_name!r} is no plain name: leave out the slashes")
        return self

    @property
    def samples(self) -> int:
        """Samples of each benchmark and of each held-out generation."""
        if self.fast_mode:
            return 50
        return 200 if self.detailed_output else 100
