"""Says what a small corpus is good for: size of a vocabulary and of a model, passes over the text.

References: Muennighoff et al., Scaling Data-Constrained Language Models (2023): up to 4 passes are
nearly as good as new text, beyond 16 little is left to learn.
"""

from collections.abc import Sequence
from pathlib import Path

from utils.data.tokens.shards import read_dataset
from utils.model.sizing import count_parameters
from utils.planning.model_choice import (
    MAX_PASSES,
    SHORT_RUN_TOKENS,
    enough_tokens,
    vocabulary_for,
)
from utils.planning.sizes import Size, standard_sizes
from utils.words import count, size

GOOD_PASSES = 4


def corpus_advice(folder: Path, config_dir: Path) -> list[str]:
    """Return a few lines about a prepared corpus that is small; none for a large one.

    Raises:
        ConfigError: a model configuration is missing or wrong.
        DataError: the folder is no prepared one.
    """
    manifest = read_dataset(folder)
    train, vocab_size = manifest["splits"]["train"], manifest["vocab_size"]
    if train["tokens"] >= SHORT_RUN_TOKENS:
        return []
    lines = []
    wanted = vocabulary_for(train["text_bytes"])
    if vocab_size > 2 * wanted:
        lines = [
            f"a vocabulary of {vocab_size:,} is large for {size(train['text_bytes'])} of text, "
            f"most tokens are too rare to be learned: prepare again with VOCAB_SIZE={wanted}"
        ]
        vocab_size = wanted
    return [*lines, _size(standard_sizes(config_dir), vocab_size, train["tokens"], folder)]


def _size(sizes: Sequence[Size], vocab_size: int, tokens: int, folder: Path) -> str:
    counts = {
        size.name: count_parameters(size.model.model_copy(update={"vocab_size": vocab_size})).total
        for size in sizes
    }
    rich = [size for size in sizes if GOOD_PASSES * tokens >= enough_tokens(counts[size.name])]
    chosen = rich[-1] if rich else sizes[0]
    vocabulary = f" VOCAB_SIZE={vocab_size}" if vocab_size > chosen.model.vocab_size else ""
    return (
        f"{count(tokens)} tokens suit {chosen.name} ({count(counts[chosen.name])} parameters); "
        f"{GOOD_PASSES} passes are nearly as good as new text, beyond {MAX_PASSES} little is "
        f"learned: make pretrain-{chosen.name} DATA_DIR={folder}{vocabulary} "
        f"NUM_TRAIN_EPOCHS={GOOD_PASSES}"
    )
