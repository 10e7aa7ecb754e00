"""What a small corpus is good for: pieces of a tokenizer, size of a model, passes over the text.

References: Muennighoff et al., Scaling Data-Constrained Language Models (2023): up to 4 passes are
nearly as good as new text, beyond 16 little is left to learn.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.data.shards import read_dataset
from utils.model.sizing import count_parameters
from utils.session.model_plan import (
    MAX_PASSES,
    SHORT_RUN_TOKENS,
    enough_tokens,
    vocabulary_for,
)
from utils.session.sizes import Size, read_size

SIZES = ("nano", "tiny", "small", "base")
GOOD_PASSES = 4


def corpus_advice(folder: Path, config_dir: Path) -> list[str]:
    """Return a few lines about a prepared corpus that is small; none for a large one.

    Raises:
        ConfigError: a model configuration is missing or wrong.
        DataError: the folder is no prepared one.
    """
    train = read_dataset(folder)["splits"]["train"]
    if train["tokens"] >= SHORT_RUN_TOKENS:
        return []
    manifest = read_dataset(folder)
    sizes = [read_size(config_dir / f"{name}.json") for name in SIZES]
    return [
        *_vocabulary(manifest["vocab_size"], train["text_bytes"]),
        _size(sizes, manifest["vocab_size"], train, folder),
    ]


def _vocabulary(vocab_size: int, text_bytes: int) -> list[str]:
    wanted = vocabulary_for(text_bytes)
    if vocab_size <= 2 * wanted:
        return []
    return [
        f"{vocab_size:,} pieces are many for {text_bytes / 1e6:.3g} MB of text, most are too rare "
        f"to be learned: prepare again with VOCAB_SIZE={wanted}"
    ]


def _size(sizes: Sequence[Size], vocab_size: int, train: Mapping[str, Any], folder: Path) -> str:
    tokens = train["tokens"]
    counts = {}
    for size in sizes:
        shape = size.model.model_copy(update={"vocab_size": min(vocab_size, size.model.vocab_size)})
        counts[size.name] = count_parameters(shape).total
    rich = [name for name, count in counts.items() if GOOD_PASSES * tokens >= enough_tokens(count)]
    name = rich[-1] if rich else sizes[0].name
    amount = f"{tokens / 1e6:.3g}M" if tokens >= 1e6 else f"{tokens / 1e3:.3g}k"
    return (
        f"{amount} tokens suit {name} ({counts[name] / 1e6:.1f}M parameters); {GOOD_PASSES} passes "
        f"are nearly as good as new text, beyond {MAX_PASSES} little is learned: "
        f"make pretrain-{name} DATA_DIR={folder} NUM_TRAIN_EPOCHS={GOOD_PASSES}"
    )
