"""Settings of stage 02."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from utils.config.model import ModelConfig
from utils.config.training import TrainingConfig


class PretrainConfig(TrainingConfig, ModelConfig):
    """Pre-train a LLaMA-style decoder from scratch on packed shards."""

    data_dir: Path | None = None
    """Prepared folder with manifest.json; the newest one in data/processed when unset."""
    data_path: Path | None = None
    """Other name of data_dir."""
    data_dirs: tuple[Path, ...] = ()
    """Several prepared folders with one tokenizer, mixed by data_weights."""
    data_weights: tuple[PositiveFloat, ...] = ()
    """Share of each of data_dirs (equal when unset)."""
    output_dir: Path = Path("checkpoints/pretrain")
    """Parent of <model_name>/step_N, best and final."""
    resume_from_checkpoint: Path | None = None
    """Checkpoint folder to continue from; a run folder means its newest good one."""
    max_length: PositiveInt | None = None
    """Tokens per training row (sequence_length when unset)."""
    num_train_epochs: PositiveFloat | None = None
    """Passes over the training split; one when neither steps nor minutes are set."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """Muon for matrices and AdamW for the rest, or AdamW for all."""
    muon_learning_rate: PositiveFloat = 0.02
    """Peak learning rate of the matrices under Muon (Jordan et al., 2024)."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay of matrices."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradient norm above which gradients are scaled down."""
    warmup_steps: int = Field(100, ge=0)
    """Steps of linear warmup (at most a tenth of the run)."""
    decay_ratio: float = Field(0.6, gt=0, le=1)
    """Share of the run over which the rate falls linearly to zero at its end."""
    save_steps: PositiveInt = 2000
    """Steps between checkpoints."""
    save_total_limit: PositiveInt = 3
    """Checkpoints step_N kept; best and final are always kept."""
    eval_steps: PositiveInt | None = None
    """Steps between validations; a tenth of the run when unset."""
    eval_tokens: PositiveInt = 131_072
    """Validation tokens scored each time (the first ones of the validation split)."""
    global_batch_size: PositiveInt | None = None
    """Rows of an optimizer step over all processes; accumulation follows from it (batch_size x
    gradient_accumulation_steps when unset, for each process unless reduce is canonical)."""
    reduce: Literal["fast", "canonical"] = "fast"
    """How micro-batches are summed: canonical gives the same bits with any number of processes."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Whether each of several processes holds the whole model or a share of it (FSDP2)."""
    deterministic: bool = True
    """Same seed, same bits on CUDA too (slower there; CPU runs are always so)."""
    flash_attn: bool = True
    """Use FlashAttention-2 where it is installed, else SDPA (logged)."""
    compile: bool = True
    """Compile the decoder blocks where there is a C compiler (logged when there is none)."""
    bf16: bool = True
    """Compute in bfloat16 where the hardware has it; weights stay in fp32."""
    cpu: bool = False
    """Train on the CPU even where there is a GPU."""

    @model_validator(mode="after")
    def _check_reduction(self) -> Self:
        if self.reduce == "canonical" and self.parallel == "fsdp":
            raise ValueError("reduce canonical needs whole gradients: use it with parallel ddp")
        return self
