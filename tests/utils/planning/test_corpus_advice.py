"""A small corpus gets a tokenizer, a size and passes that suit it."""

import pytest

from utils.files import atomic_folder
from utils.planning.corpus_advice import corpus_advice


@pytest.fixture
def advice(tmp_path, root):
    """Return the advice for a corpus of so many tokens and bytes, with such a vocabulary."""

    def about(tokens, text_bytes, vocab_size):
        folder = tmp_path / "set"
        splits = {"train": {"tokens": tokens, "text_bytes": text_bytes}}
        with atomic_folder(folder, kind="dataset", splits=splits, vocab_size=vocab_size):
            pass
        return corpus_advice(folder, root / "config")

    return about


def test_a_novel_is_for_the_smallest_model_and_a_small_vocabulary(advice):
    vocabulary, size = advice(150_000, 600_000, 32_768)
    assert "a vocabulary of 32,768 is large for 600 kB" in vocabulary
    assert "VOCAB_SIZE=4096" in vocabulary
    assert "150k tokens suit nano" in size
    assert "make pretrain-nano DATA_DIR=" in size and "NUM_TRAIN_EPOCHS=4" in size
    assert "VOCAB_SIZE" not in size  # nano takes 4096


def test_a_model_for_a_larger_vocabulary_than_its_configuration_is_told_so(advice):
    (size,) = advice(400_000, 2_000_000, 16_384)
    assert "suit nano (3.15M" in size and "VOCAB_SIZE=16384" in size


@pytest.mark.parametrize(
    ("tokens", "size"), [(13_000_000, "tiny (8.39M"), (60_000_000, "tiny"), (199_000_000, "small")]
)
def test_more_text_is_for_larger_models(advice, tokens, size):
    assert size in advice(tokens, 4 * tokens, 8192)[-1]


def test_a_fitting_vocabulary_is_not_mentioned_and_a_large_corpus_needs_no_advice(advice):
    assert len(advice(1_000_000, 4_000_000, 8192)) == 1
    assert advice(200_000_000, 800_000_000, 32_768) == []
