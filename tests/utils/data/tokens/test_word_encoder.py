"""Remembered words give the ids of the tokenizer, whatever stands between them."""

import gzip
import json
import random

import numpy as np
import pytest
import sentencepiece

from utils.data.tokens import word_encoder
from utils.data.tokens.word_encoder import WordEncoder
from utils.tokenizers.control_tokens import CHAT_TOKENS, EOS_ID
from utils.tokenizers.load import load_tokenizer
from utils.tokenizers.tokenizer import Cut
from utils.tokenizers.training import train_tokenizer

ODD = [" ", "  ", "\n", "\t", "_", "1", "23.5", "(", ")", "\u00e9", "\u4eca", "\u00a0", "\u200b",
       "\U0001f600", "\u0301", "\u00b2", "\u0661", "\u2028", "<|", *CHAT_TOKENS, "a", "self",
       "the", "'s", "\r", "\x0b"]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tokenizer_dir):
    return load_tokenizer(tokenizer_dir)


def _expected(tokenizer, text):
    return [*tokenizer.encode(text), EOS_ID]


def _check(tokenizer, texts, encoder=None):
    ids, lengths = (encoder or WordEncoder(tokenizer)).encode(texts)
    assert ids.dtype == np.dtype("<u2") and len(ids) == lengths.sum()
    rows = np.split(ids, np.cumsum(lengths)[:-1]) if texts else []
    for text, row in zip(texts, rows, strict=True):
        assert row.tolist() == _expected(tokenizer, text), repr(text)


def _odd_texts(texts, count):
    chance = random.Random(3)
    parts = ODD + [word for text in texts[:30] for word in text.split()]
    return ["".join(chance.choices(parts, k=chance.randrange(12))) for _ in range(count)]


def test_documents_give_the_same_ids(tokenizer, texts):
    encoder = WordEncoder(tokenizer)
    _check(tokenizer, texts, encoder)
    _check(tokenizer, texts[::-1], encoder)
    _check(tokenizer, [], encoder)


def test_anything_side_by_side_gives_the_same_ids(tokenizer, texts):
    _check(tokenizer, _odd_texts(texts, 3000))


@pytest.mark.parametrize("batch", [100, 10_000])
def test_words_may_be_forgotten_and_slots_be_full(tokenizer, texts, monkeypatch, batch):
    monkeypatch.setattr(word_encoder, "MAX_WORDS", 3000)
    monkeypatch.setattr(word_encoder, "SLOTS", 4096)  # many words want the same slot
    monkeypatch.setattr(word_encoder, "BATCH_BYTES", batch)
    _check(tokenizer, _odd_texts(texts, 1000) + texts)


def test_a_text_of_more_words_than_fit_goes_to_the_tokenizer(tokenizer, monkeypatch):
    monkeypatch.setattr(word_encoder, "MAX_WORDS", 2000)
    monkeypatch.setattr(word_encoder, "MAX_CHARACTERS", 4000)
    monkeypatch.setattr(word_encoder, "BATCH_BYTES", 4000)
    _check(tokenizer, ["short", " ".join(f"x{number}y" for number in range(5000)), "short"])


def test_the_finest_way_to_cut_is_used_and_lines_and_blanks_always_part(tokenizer):
    assert WordEncoder(tokenizer)._table == word_encoder.WAYS[Cut.CLASSES][0]


def test_a_vocabulary_with_pieces_across_words_is_asked_for_whole_texts(tmp_path, texts):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_prefix=str(tmp_path / "tokenizer"), model_type="bpe",
        vocab_size=600, byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, add_dummy_prefix=False, split_by_whitespace=False,
        minloglevel=2,
    )  # fmt: skip
    tokenizer = load_tokenizer(tmp_path)
    assert any(b" " in piece.strip() for piece in tokenizer.text_pieces())
    encoder = WordEncoder(tokenizer)
    assert encoder._table is None
    for text in texts[:40]:
        ids, lengths = encoder.encode([text])
        assert ids.tolist() == _expected(tokenizer, text) and lengths.tolist() == [len(ids)]


def test_real_documents_of_many_kinds_give_the_same_ids(shared_data, tmp_path):
    packed = (shared_data / "pretrain/wikipedia/wiki-00.jsonl.gz").read_bytes()
    rows = gzip.decompress(packed).splitlines()[:60]
    texts = [json.loads(line)["text"][:20_000] for line in rows]
    for path in sorted((shared_data / "multilingual/flores200").iterdir()):
        texts.append(path.read_text(encoding="utf-8")[:5000])
    tokenizer = train_tokenizer(texts, tmp_path, 4000)
    _check(tokenizer, texts)
