"""Settings of `make preflight`."""

from pathlib import Path
from typing import Literal

from utils.config.base import StageConfig


class PreflightConfig(StageConfig):
    """Prove the training signal in seconds: what is there is checked, the rest is named."""

    model_config_path: Path = Path("config/tiny.json")
    """Model configuration whose architecture is proved."""
    data_dir: Path | None = None
    """Prepared folder with manifest.json; the newest one in data/processed when unset."""
    model_path: Path | None = None
    """Checkpoint for the proofs of 03 and 04; the newest stage in checkpoints/ when unset."""
    sft_dataset_path: Path = Path("data/sft_dataset.json")
    """Conversations for stage 03."""
    dpo_dataset_path: Path = Path("data/dpo_dataset.json")
    """Preference pairs for stage 04."""
    prompt_template: Literal["chatml", "instruct", "chat"] = "chatml"
    """Layout of a conversation, where the checkpoint does not say its own."""
