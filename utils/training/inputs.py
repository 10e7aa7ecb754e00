"""What a pre-training run reads, found and checked before torch is imported."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.config.pretrain import PretrainConfig
from utils.data.tokens.shards import newest_dataset, read_dataset
from utils.errors import ConfigError, DataError
from utils.files import MANIFEST, sha256_file

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """Settings and prepared folders that fit each other."""

    cfg: PretrainConfig
    """Settings with what was found: the prepared folder, and the vocabulary of its tokenizer."""
    data_dirs: tuple[Path, ...]
    manifest: dict[str, Any]
    """Of the first folder."""

    @property
    def identity(self) -> list[str]:
        """Hash of each folder's manifest: equal for equal data wherever it lies."""
        return [sha256_file(folder / MANIFEST) for folder in self.data_dirs]


def find_inputs(cfg: PretrainConfig) -> Inputs:
    """Return what `cfg` means by its data settings.

    Raises:
        DataError: no prepared data, a damaged folder, or tokenizers that differ.
        ConfigError: the tokenizer does not fit the settings.
    """
    data_dirs = _data_dirs(cfg)
    manifests = [read_dataset(folder) for folder in data_dirs]
    _check_one_tokenizer(data_dirs, manifests)
    if cfg.data_weights and len(cfg.data_weights) != len(data_dirs):
        raise ConfigError(
            f"{len(cfg.data_weights)} data_weights for {len(data_dirs)} data_dirs: give one each"
        )
    found: dict[str, Any] = {"vocab_size": _rows(cfg, manifests[0]["vocab_size"])}
    if not cfg.data_dirs:
        found["data_dir"] = data_dirs[0]  # recorded: `make resume` needs it
    return Inputs(cfg.model_copy(update=found), data_dirs, manifests[0])


def _data_dirs(cfg: PretrainConfig) -> tuple[Path, ...]:
    if cfg.data_dirs:
        return cfg.data_dirs
    named = cfg.data_dir or cfg.data_path
    if named is None:
        named = newest_dataset()
        log.info("data: %s (the newest prepared set)", named)
    return (named,)


def _check_one_tokenizer(folders: Sequence[Path], manifests: Sequence[dict[str, Any]]) -> None:
    wanted = manifests[0]["tokenizer_sha256"]
    for folder, manifest in zip(folders, manifests, strict=True):
        found = manifest["tokenizer_sha256"]
        if found != wanted:
            raise DataError(
                f"{folder} has tokenizer {found[:12]}, {folders[0]} has {wanted[:12]}: prepare "
                "both with one (--reuse_tokenizer)"
            )


def _rows(cfg: PretrainConfig, vocabulary: int) -> int:
    """Return the rows of the embedding: the tokenizer's vocabulary, at most cfg.vocab_size.

    Raises:
        ConfigError: the vocabulary is larger.
    """
    if vocabulary > cfg.vocab_size:
        raise ConfigError(
            f"the tokenizer has a vocabulary of {vocabulary}, vocab_size is {cfg.vocab_size}: pass "
            f"--vocab_size {vocabulary} or prepare the data with a smaller one"
        )
    if vocabulary < cfg.vocab_size:
        log.info("vocab_size %d follows the tokenizer: %d rows", cfg.vocab_size, vocabulary)
    return vocabulary
