"""What a session knows about its corpus before it is prepared: name, folder, bytes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.checkout import PROCESSED
from utils.config.prepare import PrepareConfig
from utils.config.session import SessionConfig
from utils.errors import ConfigError
from utils.files import MANIFEST
from utils.reading.readers import is_supported

PYDOCS = "pydocs"
PYDOCS_BYTES = 36_000_000
"""Text of the built-in corpus (the docstrings on this machine), roughly."""


@dataclass(frozen=True)
class Corpus:
    """The corpus of a session."""

    settings: dict[str, Path]
    """Settings that 01_prepare_data.py is called with, except tokenizer and size."""
    prepare: PrepareConfig
    """Settings of the preparation as the data set configuration has them."""
    raw_bytes: float | None
    """Bytes of raw text; None for a hub data set, whose size nobody knows beforehand."""

    def folder_name(self, vocab_size: int) -> str:
        """Return the name of the prepared folder; another tokenizer gets a folder of its own."""
        name = self.prepare.name
        return name if vocab_size == self.prepare.vocab_size else f"{name}-{vocab_size}"

    def folder(self, vocab_size: int) -> Path:
        """Return the prepared folder, relative to the working folder of the stages."""
        if self.prepare.output_dir is not None:
            return self.prepare.output_dir
        return PROCESSED / self.folder_name(vocab_size)


def find_corpus(cfg: SessionConfig) -> Corpus:
    """Return the corpus that the session was asked for.

    Raises:
        ConfigError: the configuration or the folder of texts is not there or wrong.
    """
    if cfg.source is not None:
        path = cfg.source.expanduser().absolute()
        if not path.exists():
            raise ConfigError(f"{cfg.source}: there is no such file or folder: check SRC")
        prepare = PrepareConfig.build({"input_path": str(path)})
        return Corpus({"input_path": path}, prepare, _raw_bytes(prepare, cfg.work_dir))
    config = cfg.dataset_config.absolute()
    prepare = PrepareConfig.build(PrepareConfig.read_file(config), str(cfg.dataset_config))
    return Corpus({"config": config}, prepare, _raw_bytes(prepare, cfg.work_dir))


def is_prepared(corpus: Corpus, vocab_size: int, work_dir: Path) -> bool:
    """Return whether a prepared folder lies there (01 checks that its settings are the same)."""
    return (work_dir / corpus.folder(vocab_size) / MANIFEST).is_file()


def _raw_bytes(prepare: PrepareConfig, work_dir: Path) -> float | None:
    """Return the bytes of all sources, or None when one of them is not on this machine."""
    total = 0.0
    for source in prepare.sources:
        size = _source_bytes(source.input_path, work_dir)
        if size is None:
            return None
        total += size
    return total


def _source_bytes(input_path: str, work_dir: Path) -> float | None:
    if input_path == PYDOCS:
        return PYDOCS_BYTES
    path = work_dir / Path(input_path).expanduser()
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file() and is_supported(file)]
        return float(sum(file.stat().st_size for file in files))
    return float(path.stat().st_size) if path.is_file() else None


def sample_limit(corpus: Corpus, tokens: int) -> dict[str, Any]:
    """Return {"max_samples": N} where a corpus of unknown size must be cut to fit a box.

    Twice the planned tokens at 4 bytes a token, in documents of 400 bytes (a line of WikiText).
    """
    if corpus.raw_bytes is not None or corpus.prepare.max_samples or corpus.prepare.mix_datasets:
        return {}
    return {"max_samples": max(20_000, 2 * tokens * 4 // 400)}
