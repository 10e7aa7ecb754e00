"""Settings of the decoder."""

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from utils.config.base import Section
from utils.config.kinds import Manner, Shaping


class ModelConfig(Section):
    """Shape of the decoder (RMSNorm, SwiGLU, RoPE, no biases)."""

    model_name: Manner[str] = "tiny"
    """Names the checkpoint directory."""
    architecture: Shaping[Literal["llama", "qwen3"]] = "llama"
    """Llama, or Qwen3: the same with normalised queries and keys (QK-norm)."""
    n_layer: Shaping[PositiveInt] = 6
    """Decoder blocks."""
    d_model: Shaping[PositiveInt] = 256
    """Width of the residual stream."""
    n_head: Shaping[PositiveInt] = 4
    """Query heads."""
    num_key_value_heads: Shaping[PositiveInt | None] = None
    """Key/value heads (grouped-query attention); all heads when unset."""
    d_ff: Shaping[PositiveInt] = 1024
    """Width of the SwiGLU hidden layer."""
    vocab_size: Shaping[PositiveInt] = 32768
    """Rows of the embedding; must match the tokenizer."""
    sequence_length: Shaping[PositiveInt] = 1024
    """Longest context, in tokens."""
    dropout: Shaping[float] = Field(0.0, ge=0, lt=1)
    """Share of attention weights dropped in training."""
    rope_theta: Shaping[float] = Field(10_000.0, gt=0)
    """RoPE base frequency (Su et al., 2021)."""
    tie_embeddings: Shaping[bool] = True
    """Use one matrix for the input embedding and the output head."""

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.d_model % self.n_head:
            raise ValueError(
                f"d_model ({self.d_model}) must be a multiple of n_head ({self.n_head})"
            )
        if self.d_model // self.n_head % 2:
            raise ValueError(
                f"head width {self.d_model // self.n_head} must be even: change d_model or n_head"
            )
        if self.num_key_value_heads and self.n_head % self.num_key_value_heads:
            raise ValueError(
                f"n_head ({self.n_head}) must be a multiple of "
                f"num_key_value_heads ({self.num_key_value_heads})"
            )
        return self
