"""Settings of stage 03."""

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat

from utils.config.kinds import OutputFolder, Rows, Shaping, StartingModel
from utils.config.training import AdapterConfig


class SFTConfig(AdapterConfig):
    """Fine-tune a checkpoint on conversations with LoRA."""

    model_path: StartingModel[Path] = Path("checkpoints/pretrain/tiny")
    """Checkpoint to start from; a run folder means its final one."""
    dataset_path: Rows[Path] = Path("data/sft_dataset.json")
    """Rows {prompt, response}, {messages}, Alpaca, ShareGPT: json, jsonl, csv or parquet."""
    prompt_template: Shaping[Literal["chatml", "instruct", "chat"]] = "chatml"
    """Layout of a conversation; it is stored with the model and used again by 04, 05 and 06."""
    output_dir: OutputFolder[Path] = Path("checkpoints/sft")
    """Folder for the adapter, final/ (merged model) and metrics."""
    learning_rate: Shaping[PositiveFloat] = 2e-3
    """Peak learning rate of the adapter."""
    loop_share: Shaping[float] = Field(0.03, ge=0, le=1)
    """Added rows, as a share of all, that teach to end an answer that repeats itself (0: none)."""
