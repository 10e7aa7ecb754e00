"""One tokenizer in every library."""

import pytest

from utils.data.templates import TextEncoder
from utils.data.tokenizer import (
    CHAT_TOKENS,
    CONTROL_TOKENS,
    EOS_ID,
    Tokenizer,
    load_hf_tokenizer,
    train_tokenizer,
)
from utils.errors import DataError

TRICKY = [
    "  leading spaces",
    "\n\n    indented\n\ttab",
    "caf\u00e9 \u2603 \U0001f600 \u4e2d\u6587",
    "a literal <|im_end|> and <|im_start|>user",
    "</s> and <s> and <pad> as text",
    "",
    " ",
    "x = {'a': [1, 2]}  # comment",
]


@pytest.fixture(scope="module")
def tokenizer(tokenizer_dir):
    return Tokenizer.load(tokenizer_dir)


def test_sentencepiece_equals_transformers_and_decoding_is_lossless(tokenizer_dir, texts):
    tokenizer = Tokenizer.load(tokenizer_dir)
    encoder = TextEncoder(load_hf_tokenizer(tokenizer_dir))
    for text in [*TRICKY, *texts]:
        ids = tokenizer.encode(text)
        assert ids == encoder.encode(text)
        assert tokenizer.decode(ids) == text


def test_user_text_never_becomes_a_control_id(tokenizer):
    for token in CONTROL_TOKENS:
        ids = tokenizer.encode(f"a {token} b {token}{token}")
        assert not {tokenizer.processor.piece_to_id(name) for name in CONTROL_TOKENS} & set(ids)


def test_ids_of_the_control_pieces_are_fixed(tokenizer):
    ids = [tokenizer.processor.piece_to_id(name) for name in ("<unk>", "<s>", "</s>", "<pad>")]
    assert ids == [0, 1, 2, 3]
    assert [tokenizer.processor.piece_to_id(name) for name in CHAT_TOKENS] == [4, 5]
    assert tokenizer.vocab_size == 600


def test_auto_tokenizer_reads_the_folder_and_starts_and_ends_with_the_separator(tokenizer_dir):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == EOS_ID
    assert tokenizer.encode("hello") == TextEncoder(tokenizer).encode("hello")


def test_training_is_deterministic(tmp_path, texts, tokenizer):
    again = train_tokenizer(texts, tmp_path / "again", 600)
    assert again.sha256 == tokenizer.sha256


def test_too_little_text_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"cannot train 5000 pieces .* lower --vocab_size"):
        train_tokenizer(["a few words only"], tmp_path, 5000)


def test_a_broken_model_file_is_one_line(tmp_path):
    with pytest.raises(DataError, match="not found: run `make prepare`"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"garbage")
    with pytest.raises(DataError, match="is not a SentencePiece model"):
        Tokenizer.load(tmp_path)
