"""Small published models to compare a configuration with: shape, parameters, training tokens.

Shapes are those of config.json of the named repository on huggingface.co; a test builds each with
transformers and counts its parameters. Tokens are what the named publication says.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownModel:
    """One published model."""

    name: str
    family: str
    """Class of architecture, as transformers names it (model_type)."""
    repository: str
    n_layer: int
    d_model: int
    n_head: int
    d_ff: int
    vocab_size: int
    positions: int
    parameters: int
    """All of them, embeddings included."""
    tokens: float | None
    """Training tokens, repetitions included; None: not published."""
    source: str
    """Where the tokens are published."""
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    tie_embeddings: bool = True

    @property
    def shape(self) -> str:
        """Return layers, width and heads in words."""
        shared = f"/{self.num_key_value_heads}" if self.num_key_value_heads else ""
        return f"{self.n_layer} x {self.d_model}, {self.n_head}{shared} heads"


def _pythia(size: str, n_layer: int, d_model: int, n_head: int, parameters: int) -> KnownModel:
    return KnownModel(
        f"Pythia-{size}", "gpt_neox", f"EleutherAI/pythia-{size}", n_layer, d_model, n_head,
        4 * d_model, 50304, 2048, parameters, 3e11, "Biderman et al., 2023",
        tie_embeddings=False,
    )  # fmt: skip


KNOWN_MODELS = (
    _pythia("14m", 6, 128, 4, 14_067_712),
    _pythia("31m", 6, 256, 8, 30_494_720),
    KnownModel(
        "TinyStories-33M", "gpt_neo", "roneneldan/TinyStories-33M", 4, 768, 16, 3072, 50257, 2048,
        68_514_048, None, "Eldan and Li, 2023",
    ),
    _pythia("70m", 6, 512, 8, 70_426_624),
    KnownModel(
        "GPT-2 124M", "gpt2", "openai-community/gpt2", 12, 768, 12, 3072, 50257, 1024,
        124_439_808, None, "Radford et al., 2019",
    ),
    KnownModel(
        "OPT-125M", "opt", "facebook/opt-125m", 12, 768, 12, 3072, 50272, 2048,
        125_239_296, 1.8e11, "Zhang et al., 2022",
    ),
    KnownModel(
        "SmolLM-135M", "llama", "HuggingFaceTB/SmolLM-135M", 30, 576, 9, 1536, 49152, 2048,
        134_515_008, 6e11, "its model card", num_key_value_heads=3,
    ),
    _pythia("160m", 12, 768, 12, 162_322_944),
    KnownModel(
        "GPT-2 355M", "gpt2", "openai-community/gpt2-medium", 24, 1024, 16, 4096, 50257, 1024,
        354_823_168, None, "Radford et al., 2019",
    ),
    KnownModel(
        "SmolLM2-360M", "llama", "HuggingFaceTB/SmolLM2-360M", 32, 960, 15, 2560, 49152, 8192,
        361_821_120, 4e12, "Allal et al., 2025", num_key_value_heads=5,
    ),
    _pythia("410m", 24, 1024, 16, 405_334_016),
    KnownModel(
        "Qwen3-0.6B", "qwen3", "Qwen/Qwen3-0.6B", 28, 1024, 16, 3072, 151936, 40960,
        596_049_920, 3.6e13, "Yang et al., 2025", num_key_value_heads=8, head_dim=128,
    ),
    KnownModel(
        "TinyLlama-1.1B", "llama", "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T", 22, 2048,
        32, 5632, 32000, 2048, 1_100_048_384, 3e12, "Zhang et al., 2024",
        num_key_value_heads=4, tie_embeddings=False,
    ),
)  # fmt: skip
"""Smallest first."""


def nearest_known(parameters: int) -> KnownModel:
    """Return the published model whose size is nearest by ratio."""
    return min(KNOWN_MODELS, key=lambda model: _ratio(parameters, model.parameters))


def _ratio(one: int, other: int) -> float:
    """Return how far apart two sizes are, always at least 1."""
    return max(one / other, other / one)
