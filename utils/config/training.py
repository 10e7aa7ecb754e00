"""Settings that every training stage shares."""

from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt

from utils.config.base import StageConfig
from utils.config.kinds import CommandLine, Indirect, Manner, OutputFolder, Shaping, TimeBox


class TrainingConfig(StageConfig):
    """What pre-training, SFT and DPO have in common."""

    learning_rate: Shaping[PositiveFloat] = 3e-3
    """Peak learning rate of AdamW, reached after warmup."""
    batch_size: Indirect[PositiveInt] = 16
    """Sequences per device and micro-step; halved until it fits, the global batch stays."""
    gradient_accumulation_steps: Indirect[PositiveInt] = 4
    """Micro-steps per optimizer step."""
    max_steps: Shaping[PositiveInt | None] = None
    """Optimizer steps; the epochs or the time box decide when unset."""
    max_minutes: TimeBox[PositiveFloat | None] = None
    """Time box: the number of steps is planned so that the stage ends inside it."""
    logging_steps: Manner[PositiveInt] = 50
    """Steps between log lines."""
    gradient_checkpointing: Shaping[bool] = False
    """Recompute activations in the backward pass: less memory, about a third slower."""
    tensorboard: Manner[bool] = False
    """Also write TensorBoard event files."""
    wandb: Manner[bool] = False
    """Also log to Weights & Biases (offline unless WANDB_API_KEY is set)."""
    preflight: Manner[bool] = True
    """Prove the training signal before the first step."""
    seed: Shaping[int] = 42
    """Seeds weights, data order and dropout."""


class AdapterConfig(TrainingConfig):
    """What SFT and DPO have in common: a LoRA adapter on a checkpoint."""

    output_dir: OutputFolder[Path] = Path("checkpoints/adapter")
    """Folder for the adapter, final/ (merged model) and metrics."""
    batch_size: Indirect[PositiveInt] = 8
    """Rows per device and micro-step."""
    gradient_accumulation_steps: Indirect[PositiveInt] = 1
    """Micro-steps per optimizer step."""
    logging_steps: Manner[PositiveInt] = 10
    """Steps between log lines."""
    num_train_epochs: Shaping[PositiveFloat] = 1.0
    """Passes over the training set at most."""
    warmup_ratio: Shaping[float] = Field(0.05, ge=0, lt=1)
    """Share of the steps spent on linear warmup; the rate then falls linearly to zero."""
    max_length: Shaping[PositiveInt | None] = None
    """Longest row in tokens (the context when unset); longer rows are dropped and counted."""
    heldout_path: Indirect[Path | None] = None
    """Held-out rows; <dataset>_heldout.json beside the training set when unset, else 5 % of it."""
    decontaminate: Shaping[bool] = True
    """Leave out rows that hold a text of the benchmarks of stage 05."""
    eval_data_dir: Indirect[Path | None] = None
    """Local evaluation files to decontaminate against (as stage 05's); the hub when unset."""
    r: Shaping[CommandLine[PositiveInt]] = 16
    """Rank of the LoRA matrices (Hu et al., 2021)."""
    lora_alpha: Shaping[PositiveFloat] = 32.0
    """LoRA scale: the update is multiplied by lora_alpha / r."""
    lora_dropout: Shaping[float] = Field(0.0, ge=0, lt=1)
    """Dropout in front of the LoRA matrices."""
    target_modules: Shaping[tuple[str, ...]] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    """Linear layers that get an adapter."""
