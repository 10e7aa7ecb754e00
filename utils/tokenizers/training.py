"""Trains the tokenizers of Lumi: SentencePiece BPE and unigram, byte-level BPE.

All have the control tokens of `utils.tokenizers.control_tokens` with the same ids, and none changes
a text: no normalisation, no blank in front, bytes for what is not in the vocabulary.
"""

import io
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from utils.config.prepare import TokenizerType
from utils.errors import DataError
from utils.tokenizers.control_tokens import (
    BOS_ID,
    CHAT_TOKENS,
    CONTROL_TOKENS,
    EOS,
    EOS_ID,
    PAD_ID,
    SPARE_TOKENS,
    UNK_ID,
)
from utils.tokenizers.json_file import name_end, special_token
from utils.tokenizers.load import load_tokenizer
from utils.tokenizers.sentencepiece import make_exact, parse_proto
from utils.tokenizers.tokenizer import JSON_FILE, MODEL_FILE, Tokenizer
from utils.tokenizers.transformers_files import save_hf_tokenizer

MAX_SENTENCE_BYTES = 16_384
"""SentencePiece leaves out longer training lines; documents are cut into lines first."""
FILES = {"bpe": MODEL_FILE, "unigram": MODEL_FILE, "byte_level": JSON_FILE}
"""The frozen file of each type."""


def train_tokenizer(
    texts: Iterable[str], folder: Path, vocab_size: int, kind: TokenizerType = "bpe"
) -> Tokenizer:
    """Train on `texts`, write the frozen file and the Hugging Face files into `folder`.

    Deterministic: the same texts in the same order give the same bytes.

    Raises:
        DataError: the texts are too few for a vocabulary of `vocab_size`.
    """
    if kind == "byte_level":
        return write_tokenizer(folder, kind, _train_byte_level(texts, vocab_size))
    options: dict[str, Any] = {}
    if kind == "unigram":  # control strings are spelled in letters: see NEVER in transformers_files
        options["required_chars"] = string.ascii_letters + string.digits + string.punctuation
    data = _train_sentencepiece(texts, vocab_size, model_type=kind, **options)
    if kind == "unigram":
        proto = parse_proto(data)
        make_exact(proto)
        data = proto.SerializeToString(deterministic=True)
    return write_tokenizer(folder, kind, data)


def write_tokenizer(folder: Path, kind: TokenizerType, data: bytes) -> Tokenizer:
    """Write the frozen file and the Hugging Face files, and return the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILES[kind]).write_bytes(data)
    save_hf_tokenizer(folder, folder)
    return load_tokenizer(folder)


def _train_sentencepiece(texts: Iterable[str], vocab_size: int, **options: Any) -> bytes:
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_lines(texts),
            model_writer=model,
            vocab_size=vocab_size,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            unk_id=UNK_ID,
            bos_id=BOS_ID,
            eos_id=EOS_ID,
            pad_id=PAD_ID,
            user_defined_symbols=[*CHAT_TOKENS, *SPARE_TOKENS],
            max_sentence_length=MAX_SENTENCE_BYTES,
            num_threads=1,
            minloglevel=2,
            **options,
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())[-160:]
        raise DataError(
            f"cannot train a vocabulary of {vocab_size} on this corpus ({reason}): "
            "lower --vocab_size"
        ) from error
    return model.getvalue()


def _lines(texts: Iterable[str]) -> Iterable[str]:
    """Yield lines short enough for the trainer, with their line end as part of the text."""
    for text in texts:
        for line in text.splitlines(keepends=True):
            for start in range(0, len(line), MAX_SENTENCE_BYTES // 4):
                yield line[start : start + MAX_SENTENCE_BYTES // 4]


def _train_byte_level(texts: Iterable[str], vocab_size: int) -> bytes:
    """Return tokenizer.json of a BPE over bytes, whose texts are cut as GPT-2 does."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[special_token(token) for token in CONTROL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    found = backend.get_vocab_size()
    if found < vocab_size:
        raise DataError(
            f"cannot train a vocabulary of {vocab_size} on this corpus (it gives {found}): "
            "lower --vocab_size, or add text"
        )
    name_end(backend, EOS)
    return backend.to_str(pretty=True).encode()
