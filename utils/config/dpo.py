"""Settings of stage 04."""

from pathlib import Path

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from utils.config.kinds import Indirect, OutputFolder, Rows, Shaping, StartingModel
from utils.config.training import AdapterConfig


class DPOConfig(AdapterConfig):
    """Align an SFT model with preference pairs (Rafailov et al., 2023)."""

    model_path: StartingModel[Path] = Path("checkpoints/sft")
    """Output folder of stage 03 (adapter), or any checkpoint, which then gets a new adapter."""
    dataset_path: Rows[Path] = Path("data/dpo_dataset.json")
    """Rows {prompt, chosen, rejected}, Alpaca, ShareGPT, hh-rlhf: json, jsonl, csv, parquet."""
    output_dir: OutputFolder[Path] = Path("checkpoints/dpo")
    """Folder for the adapter, final/ (merged model) and metrics."""
    beta: Shaping[PositiveFloat] = 0.1
    """Strength of the pull towards the SFT model."""
    sft_loss_weight: Shaping[NonNegativeFloat] = 0.3
    """Weight of the chosen answers' own loss, which keeps them likely and whole (0: plain DPO)."""
    learning_rate: Shaping[PositiveFloat] = 1e-3
    """Peak learning rate of the adapter."""
    batch_size: Indirect[PositiveInt] = 4
    """Pairs per device and micro-step."""
    gradient_accumulation_steps: Indirect[PositiveInt] = 2
    """Micro-steps per optimizer step."""
