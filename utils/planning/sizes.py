"""The model configurations of this checkout, and what of them fits into a memory.

Knows nothing about time: see `utils.planning.check_env` and `utils.planning.architectures`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.config.base import read_config_file
from utils.config.model import ModelConfig
from utils.config.pretrain import PretrainConfig
from utils.errors import ConfigError, DataError
from utils.model.sizing import memory_bytes

SIZES = ("nano", "tiny", "small", "base")
MODEL_KEYS = ("model_name", "n_layer", "d_model", "n_head", "d_ff")
"""A configuration with one of these keys describes a model."""
MEMORY_SHARE = 0.85
"""Part of a memory that a step may fill: the rest is for the CUDA context, buffers of the libraries
and fragments (0.5 to 1.5 GB of 24)."""


@dataclass(frozen=True)
class Size:
    """One model configuration, validated."""

    path: Path
    values: dict[str, Any]
    """What the file says."""
    training: PretrainConfig
    model: ModelConfig

    @property
    def name(self) -> str:
        """The stem of the file."""
        return self.path.stem


def read_size(path: Path) -> Size:
    """Return a model configuration.

    Raises:
        ConfigError: it cannot be read or does not validate; the message names the file.
    """
    values = PretrainConfig.read_file(path)
    training = PretrainConfig.build(values, str(path))
    model = ModelConfig(**{key: getattr(training, key) for key in ModelConfig.model_fields})
    return Size(path, values, training, model)


def standard_sizes(folder: Path) -> list[Size]:
    """Return nano, tiny, small and base.

    Raises:
        ConfigError: one is missing or wrong.
    """
    return [read_size(folder / f"{name}.json") for name in SIZES]


def all_sizes(folder: Path) -> list[Size]:
    """Return every configuration in `folder` that describes a model, smallest file name first.

    Raises:
        ConfigError: a file cannot be read or a model does not validate.
        DataError: there is none.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder: pass --config_dir")
    paths = [path for path in sorted(folder.glob("*.json")) if _describes_model(path)]
    if not paths:
        raise DataError(f"{folder} holds no model configuration: pass --config_dir")
    return [read_size(path) for path in paths]


def _describes_model(path: Path) -> bool:
    return any(key in MODEL_KEYS for key in read_config_file(path))


def step_bytes(size: Size, batch_size: int, *, gpu: bool = False) -> int:
    """Return the memory of a training step with `batch_size` rows on one device, in bytes."""
    training = size.training
    return memory_bytes(
        size.model,
        batch_size,
        training.max_length,
        optimizer=training.optimizer,
        gradient_checkpointing=training.gradient_checkpointing,
        fused_attention=gpu,
    )


def largest_batch(size: Size, limit_bytes: float, most: int, *, gpu: bool = False) -> int:
    """Return the largest of most, most/2, ... rows that fits into `limit_bytes`; 0 for none."""
    batch = most
    while batch and step_bytes(size, batch, gpu=gpu) > MEMORY_SHARE * limit_bytes:
        batch //= 2
    return batch
