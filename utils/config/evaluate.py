"""Settings of stage 05."""

from pathlib import Path

from pydantic import PositiveFloat, PositiveInt

from utils.config.base import StageConfig


class EvaluateConfig(StageConfig):
    """Measure any checkpoint: likelihood benchmarks, held-out text, smoke prompts, preferences."""

    model_path: Path = Path("checkpoints/dpo")
    """Checkpoint or run folder to evaluate."""
    data_dir: Path | None = None
    """Folder with wikitext2/, boolq/, lambada/ files in the public formats; the hub when unset."""
    corpus_dir: Path | None = None
    """Prepared folder for held-out bits per byte and baselines; newest fitting one when unset."""
    sft_heldout_path: Path = Path("data/sft_dataset_heldout.json")
    """Held-out conversations for loss and stop rate."""
    dpo_heldout_path: Path = Path("data/dpo_dataset_heldout.json")
    """Held-out pairs for preference accuracy."""
    output_dir: Path = Path("evaluation/results")
    """Parent of RUN/evaluation_results.json, report.md and per-item records."""
    run_name: str | None = None
    """Name of the result folder RUN (model folder and date when unset)."""
    max_boolq_samples: PositiveInt = 100
    """BoolQ questions scored, from the start of the file."""
    max_lambada_samples: PositiveInt = 100
    """LAMBADA passages scored, from the start of the file."""
    max_wikitext_tokens: PositiveInt | None = None
    """WikiText-2 tokens scored; all when unset, and then comparable with published figures."""
    detailed_output: bool = False
    """Score 200 samples of each benchmark and keep every item's record."""
    fast_mode: bool = False
    """Score 50 samples, a part of WikiText-2 and one smoke prompt of each category."""
    skip_perplexity: bool = False
    """Leave out WikiText-2."""
    custom_prompts: Path | None = None
    """JSON file {category: [prompt, ...]} instead of the smoke prompts that ship."""
    max_new_tokens: PositiveInt = 100
    """Longest smoke answer, in tokens."""
    max_minutes: PositiveFloat | None = None
    """Time box: what does not fit is reported as not run."""
    cpu: bool = False
    """Evaluate on the CPU even where there is a GPU."""
    seed: int = 42
    """Seeds the sampled smoke answers."""
