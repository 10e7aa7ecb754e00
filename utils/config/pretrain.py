"""Settings of stage 02."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from utils.config.kinds import (
    CommandLine,
    Corpus,
    Indirect,
    Manner,
    OutputFolder,
    Resumed,
    Shaping,
)
from utils.config.model import ModelConfig
from utils.config.training import TrainingConfig


class PretrainConfig(TrainingConfig, ModelConfig):
    """Pre-train a decoder from scratch on packed shards."""

    data_dir: Corpus[Path | None] = None
    """Prepared folder with manifest.json; the newest one in data/processed when unset."""
    data_path: Corpus[Path | None] = None
    """Other name of data_dir."""
    data_dirs: Corpus[tuple[Path, ...]] = ()
    """Several prepared folders with one tokenizer, mixed by data_weights."""
    data_weights: Shaping[tuple[PositiveFloat, ...]] = ()
    """Share of each of data_dirs (equal when unset)."""
    output_dir: OutputFolder[Path] = Path("checkpoints/pretrain")
    """Parent of <model_name>/step_N, best and final."""
    resume_from_checkpoint: Resumed[Path | None] = None
    """Checkpoint folder to continue from; a run folder means its newest good one."""
    max_length: Shaping[PositiveInt | None] = None
    """Tokens per training row (sequence_length when unset)."""
    num_train_epochs: Shaping[PositiveFloat | None] = None
    """Passes over the training split; one when neither steps nor minutes are set."""
    packing: Shaping[Literal["end_to_end", "best_fit"]] = "end_to_end"
    """Documents end to end, cut at row ends, or whole in rows that begin with one."""
    document_mask: Shaping[bool] = False
    """Attention inside documents only; positions restart with each."""
    tokens_on_gpu: Manner[bool] = True
    """Keep the training tokens on the GPU where they fit; else a thread reads ahead."""
    initialization: Shaping[Literal["random", "bigram"]] = "random"
    """Random weights, or an embedding that holds which token follows which in the training text."""
    optimizer: Shaping[Literal["normuon", "muon", "adamw"]] = "normuon"
    """NorMuon or Muon for matrices and AdamW for the rest, or AdamW for all."""
    muon_learning_rate: Shaping[PositiveFloat] = 0.02
    """Peak learning rate of the matrices under (Nor)Muon (Jordan et al., 2024)."""
    muon_momentum: Shaping[float] = Field(0.95, gt=0, lt=1)
    """Momentum of (Nor)Muon; a shorter memory, 0.9 or 0.85, suits runs of some hundred steps."""
    weight_decay: Shaping[float] = Field(0.1, ge=0)
    """Decoupled weight decay of matrices."""
    max_grad_norm: Shaping[PositiveFloat] = 1.0
    """Gradient norm above which gradients are scaled down."""
    spike_threshold: Shaping[float] = Field(10.0, ge=0)
    """Deviations above the median of the last losses from which rows are skipped; 0: off."""
    warmup_steps: Shaping[int | None] = Field(None, ge=0)
    """Steps of linear warmup, at most a tenth of the run; a twentieth, at most 100, when unset."""
    decay_ratio: Shaping[float] = Field(0.6, gt=0, le=1)
    """Share of the run over which the rate falls linearly to zero at its end."""
    save_steps: Manner[PositiveInt] = 2000
    """Steps between checkpoints."""
    save_minutes: Manner[PositiveFloat] = 5.0
    """Minutes of training that a kill may lose: saved more often where save_steps is too rare."""
    save_total_limit: Manner[PositiveInt] = 3
    """Checkpoints step_N kept; best and final are always kept."""
    keep_every: Manner[PositiveInt | None] = None
    """Steps between checkpoints that are saved and kept beside those of save_total_limit."""
    disk_budget_gb: Manner[PositiveFloat | None] = None
    """GB (1e9 bytes) that all checkpoints of the run may take; the oldest step_N go first."""
    eval_steps: Manner[PositiveInt | None] = None
    """Steps between validations; when unset a tenth of the run, of a short one more."""
    early_stopping_patience: Manner[PositiveInt | None] = None
    """Validations without improvement after which the run decays and ends; off when unset."""
    early_stopping_min_delta: Manner[float] = Field(0.0, ge=0)
    """Bits per byte that count as an improvement."""
    eval_tokens: Manner[PositiveInt] = 131_072
    """Validation tokens scored each time (the first ones of the validation split)."""
    plan: Indirect[Path | None] = None
    """Run folder (or plan.json) whose recorded plan is followed, to the same bytes."""
    cost_per_hour: Manner[float | None] = Field(None, ge=0)
    """Price of an hour of the whole machine, in any currency: the summary tells the cost."""
    global_batch_size: Shaping[PositiveInt | None] = None
    """Rows of an optimizer step over all processes; accumulation follows from it (batch_size x
    gradient_accumulation_steps when unset, for each process unless reduce is canonical)."""
    reduce: Shaping[Literal["fast", "canonical"]] = "fast"
    """How micro-batches are summed: canonical gives the same bits with any number of processes."""
    parallel: Shaping[Literal["ddp", "fsdp"]] = "ddp"
    """Whether each of several processes holds the whole model or a share of it (FSDP2)."""
    deterministic: Shaping[bool] = True
    """Same seed, same bits on CUDA too (slower there; CPU runs are always so)."""
    flash_attn: Shaping[bool] = True
    """Use FlashAttention-4, 3 or 2 on CUDA where it is installed, else SDPA (logged)."""
    blocked_attention: Shaping[bool] = True
    """Attend in causal blocks of queries on a CPU, else SDPA."""
    chunked_head: Shaping[bool] = True
    """Form loss and gradient chunk by chunk, else cross_entropy on all logits at once."""
    fused_optimizer: Shaping[bool] = True
    """AdamW in one pass and Muon over stacks of matrices, else torch's own (NorMuon has none)."""
    fast_matmul: Shaping[bool] = True
    """Take other fp32 products where they are faster here and their error is that of fp32."""
    compile: Shaping[bool] = True
    """Compile the decoder blocks where there is a C compiler (logged when there is none)."""
    bf16: Shaping[bool] = True
    """Compute in bfloat16 where that is faster than fp32; weights stay in fp32."""
    cpu: Manner[CommandLine[bool]] = False
    """Train on the CPU even where there is a GPU."""

    @model_validator(mode="after")
    def _check_plan(self) -> Self:
        lengths = ("max_steps", "max_minutes", "num_train_epochs")
        given = [name for name in lengths if getattr(self, name) is not None]
        if self.plan is not None and given:
            raise ValueError(f"plan says how long the run is: leave out {given[0]}")
        return self

    @model_validator(mode="after")
    def _check_reduction(self) -> Self:
        if self.reduce == "canonical" and self.parallel == "fsdp":
            raise ValueError("reduce canonical needs whole gradients: use it with parallel ddp")
        return self
