"""Counts parameters, operations and bytes of a decoder from its settings alone (no torch).

Legend: L layers, D width, F feed-forward width, V vocabulary, T positions, B rows.
"""

from dataclasses import dataclass

from utils.config.model import ModelConfig

FP32_BYTES = 4
CHUNK_LOGITS_BYTES = 300_000_000
"""Working memory of the chunked loss head at most (utils.training.step.loss)."""


@dataclass(frozen=True)
class ParameterCount:
    """Parameters by what they do."""

    embedding: int
    """Input embedding, V x D."""
    head: int
    """Output matrix, 0 when it is the embedding."""
    layers: int
    """All decoder blocks."""
    final_norm: int

    @property
    def total(self) -> int:
        """All parameters."""
        return self.embedding + self.head + self.layers + self.final_norm

    @property
    def without_embeddings(self) -> int:
        """Parameters that are neither embedding nor head."""
        return self.layers + self.final_norm


def count_parameters(config: ModelConfig) -> ParameterCount:
    """Return the parameter counts that torch would count."""
    width, table = config.d_model, config.vocab_size * config.d_model
    norms = 2 * width + (2 * width // config.n_head if config.architecture == "qwen3" else 0)
    return ParameterCount(
        embedding=table,
        head=0 if config.tie_embeddings else table,
        layers=config.n_layer * (_layer_matrices(config) + norms),
        final_norm=width,
    )


def _layer_matrices(config: ModelConfig) -> int:
    """Weights of the matrices of one block."""
    return sum(rows * columns for rows, columns in _matrix_shapes(config))


def _matrix_shapes(config: ModelConfig) -> list[tuple[int, int]]:
    """Shapes of q, k, v, o and the three of SwiGLU."""
    width = config.d_model
    key_width = (config.num_key_value_heads or config.n_head) * (width // config.n_head)
    attention = [(width, width), (key_width, width), (key_width, width), (width, width)]
    return [*attention, (config.d_ff, width), (config.d_ff, width), (width, config.d_ff)]


def matrix_parameters(config: ModelConfig) -> int:
    """Return the weights that take part in a product for each token: blocks and output head."""
    return config.n_layer * _layer_matrices(config) + config.vocab_size * config.d_model


def flops_per_token(config: ModelConfig, length: int | None = None) -> int:
    """Return floating-point operations of forward and backward for one token of a training row.

    6 x matrix parameters + 6 x layers x width x length: causal attention costs two products of
    T / 2 x D on average, three times (forward, two gradients), two operations each.
    """
    positions = length or config.sequence_length
    return 6 * matrix_parameters(config) + 6 * config.n_layer * config.d_model * positions


def memory_bytes(
    config: ModelConfig,
    batch_size: int,
    length: int | None = None,
    *,
    optimizer: str = "normuon",
    gradient_checkpointing: bool = False,
    fused_attention: bool = False,
) -> int:
    """Estimate the bytes of a training step: weights, gradients, optimizer, activations, head.

    A block keeps about 24 D + 8 F bytes per token under bf16 autocast (residuals, norms, q, k, v,
    gate, up) and, without fused attention (FlashAttention, SDPA on a GPU), two T x T / 2 score
    tables a head in 2 + 4 bytes.
    """
    positions = length or config.sequence_length
    tokens = batch_size * positions
    scores = 0 if fused_attention else 3 * config.n_head * positions
    per_token = 24 * config.d_model + 8 * config.d_ff + scores
    kept_layers = 1 if gradient_checkpointing else config.n_layer
    kept = tokens * (kept_layers * per_token + config.n_layer * FP32_BYTES * config.d_model)
    head = CHUNK_LOGITS_BYTES + 8 * config.vocab_size * config.d_model
    return (
        2 * FP32_BYTES * count_parameters(config).total
        + state_bytes(config, optimizer)
        + kept
        + head
    )


def state_bytes(config: ModelConfig, optimizer: str = "normuon") -> int:
    """Return the bytes of the optimizer state: two buffers a weight under AdamW.

    A matrix has one under Muon; NorMuon adds a number for each vector of its longer side.
    """
    count = 2 * count_parameters(config).total
    if optimizer != "adamw":
        count -= config.n_layer * _layer_matrices(config)
    if optimizer == "normuon":
        count += config.n_layer * sum(max(shape) for shape in _matrix_shapes(config))
    return FP32_BYTES * count


def checkpoint_bytes(config: ModelConfig, optimizer: str = "normuon") -> int:
    """Return the bytes of one checkpoint: fp32 weights, optimizer state, tokenizer and notes."""
    notes = 2_000_000 + 120 * config.vocab_size
    return FP32_BYTES * count_parameters(config).total + state_bytes(config, optimizer) + notes
