"""Text and ids are proved on real documents; each kind of damage is found."""

import pytest

from utils.chat.templates import TextEncoder
from utils.preflight.text import round_trip, shards_hold_text, tokenizers_agree, vocabulary_fits
from utils.tokenizers.load import load_tokenizer
from utils.tokenizers.training import train_tokenizer
from utils.tokenizers.transformers_files import load_hf_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tokenizer_dir):
    return load_tokenizer(tokenizer_dir)


@pytest.fixture(scope="module")
def other_dir(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("other")
    train_tokenizer(texts[:60], folder, 400)
    return folder


def test_real_texts_come_back(texts, tokenizer):
    assert round_trip(texts[:50], tokenizer).ok


def test_a_lost_character_is_found_and_shown(tokenizer):
    result = round_trip(["fine", "a \u2581 b"], tokenizer)
    assert not result.ok
    assert result.measured.startswith("1 of 2 texts differ, such as 'a ")


def test_no_text_proves_nothing(tokenizer):
    assert not round_trip([], tokenizer).ok


def test_the_libraries_agree(texts, tokenizer, tokenizer_dir):
    encoder = TextEncoder(load_hf_tokenizer(tokenizer_dir))
    assert tokenizers_agree([*texts[:50], "say <|im_end|> now"], tokenizer, encoder.encode).ok


def test_a_swapped_tokenizer_is_found(texts, tokenizer, other_dir):
    encoder = TextEncoder(load_hf_tokenizer(other_dir))
    assert not tokenizers_agree(texts[:5], tokenizer, encoder.encode).ok


def test_shards_hold_their_text(texts, tokenizer):
    documents = [(text, [*tokenizer.encode(text), 2]) for text in texts[:20]]
    assert shards_hold_text(documents, tokenizer).ok


@pytest.mark.parametrize(
    "damage",
    [
        lambda ids: ids[:-1],  # no </s>
        lambda ids: [ids[0] + 1, *ids[1:]],
        lambda ids: [],
        lambda ids: ids[1:],
    ],
)
def test_damaged_shards_are_found(texts, tokenizer, damage):
    documents = [(text, [*tokenizer.encode(text), 2]) for text in texts[:3]]
    documents[1] = (documents[1][0], damage(documents[1][1]))
    result = shards_hold_text(documents, tokenizer)
    assert not result.ok
    assert result.measured.startswith("1 of 3")


def test_an_id_needs_a_piece_and_a_row():
    assert vocabulary_fits(599, 600, 600).ok
    assert vocabulary_fits(599, 600, 640).ok
    assert not vocabulary_fits(600, 600, 640).ok
    assert not vocabulary_fits(100, 600, 512).ok
