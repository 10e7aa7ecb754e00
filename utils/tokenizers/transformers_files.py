"""Writes the files with which transformers reproduces the ids of a frozen tokenizer.

A Llama tokenizer without a blank in front is loaded by the class of that name; everything else is
described whole in tokenizer.json, so that no class can guess: a unigram model is not Llama's.
"""

import shutil
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from utils.errors import DataError
from utils.tokenizers.control_tokens import CHAT_TOKENS, UNK
from utils.tokenizers.json_file import JsonTokenizer, special_token
from utils.tokenizers.load import load_tokenizer
from utils.tokenizers.sentencepiece import (
    NORMAL,
    SPACE_MARK,
    SentencePieceTokenizer,
    read_proto,
)
from utils.tokenizers.tokenizer import MODEL_FILE, frozen_file

NEVER = -10_000.0
"""Score of control and byte pieces, which `tokenizers` would take for text: any way to spell one in
other pieces scores higher, as long as each of its characters is a piece."""


def load_hf_tokenizer(folder: Path) -> Any:
    """Return the transformers tokenizer of a tokenizer folder or checkpoint."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def save_hf_tokenizer(source: Path, folder: Path, chat_template: str | None = None) -> None:
    """Write the tokenizer of `source` into `folder` for transformers, the frozen file included.

    Raises:
        DataError: there is none.
    """
    frozen = frozen_file(source)
    if source != folder:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(frozen, folder / frozen.name)
    data = frozen.read_bytes()
    tokenizer = _transformers(folder)
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)
    (folder / frozen.name).write_bytes(data)  # which writes tokenizer.json in its own way


def check_agreement(folder: Path, texts: list[str]) -> None:
    """Check that transformers gives the ids of the frozen tokenizer, for texts and their end.

    Raises:
        DataError: it does not.
    """
    frozen, theirs = load_tokenizer(folder), load_hf_tokenizer(folder)
    ends = (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id)
    same = ends == (frozen.ids.eos, frozen.ids.eos, frozen.ids.pad)
    for text in texts:
        ids = theirs.encode(text, add_special_tokens=False, split_special_tokens=True)
        same = same and ids == frozen.encode(text) and theirs.decode(ids) == text
    if not same:
        raise DataError(
            "transformers and this tokenizer give different ids: train one with --tokenizer_type"
        )


def _transformers(folder: Path) -> Any:
    """Return a transformers tokenizer that equals the frozen file in `folder`."""
    from transformers import LlamaTokenizer, PreTrainedTokenizerFast

    frozen = load_tokenizer(folder)
    if isinstance(frozen, SentencePieceTokenizer):
        name = frozen.processor.id_to_piece
        eos, pad, unk = (name(at) for at in (frozen.ids.eos, frozen.ids.pad, _unknown(frozen)))
        names: dict[str, Any] = {
            "bos_token": eos,
            "eos_token": eos,
            "unk_token": unk,
            "pad_token": pad,
        }
        if frozen.type == "bpe":
            llama = LlamaTokenizer.from_pretrained(
                folder,
                add_prefix_space=False,
                legacy=False,
                add_bos_token=False,
                add_eos_token=False,
                **names,
                extra_special_tokens=list(CHAT_TOKENS),
            )
            if not frozen.prefix:
                return llama
            backend = _with_prefix(llama.backend_tokenizer)
        else:
            backend = _unigram(folder)
    else:
        assert isinstance(frozen, JsonTokenizer)
        backend = frozen.backend
        eos, pad = (backend.id_to_token(at) for at in (frozen.ids.eos, frozen.ids.pad))
        names = {"bos_token": eos, "eos_token": eos, "pad_token": pad}
        if frozen.backend.token_to_id(UNK) is not None:
            names["unk_token"] = UNK
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        **names,
        extra_special_tokens=list(CHAT_TOKENS),
    )


def _unknown(frozen: SentencePieceTokenizer) -> int:
    return frozen.processor.unk_id()


def _with_prefix(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Put a blank in front of every text, as SentencePiece does: also of one that begins with one.

    The Metaspace step of Llama's own class leaves it out there.
    """
    steps = [normalizers.Prepend(SPACE_MARK), normalizers.Replace(" ", SPACE_MARK)]
    backend.normalizer = normalizers.Sequence(steps)
    backend.pre_tokenizer = None  # pyright: ignore[reportAttributeAccessIssue]
    backend.decoder = decoders.Sequence([*_text_steps(), decoders.Strip(" ", 1, 0)])
    return backend


def _unigram(folder: Path) -> tokenizers.Tokenizer:
    """Return the unigram model of a folder with the same pieces and scores."""
    proto = read_proto(folder / MODEL_FILE)
    pieces = [
        (piece.piece, piece.score if piece.type == NORMAL else NEVER) for piece in proto.pieces
    ]
    unknown = proto.trainer_spec.unk_id
    backend = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=unknown, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(
        SPACE_MARK, prepend_scheme="never", split=False
    )
    backend.decoder = decoders.Sequence(_text_steps())
    special = [piece.piece for piece in proto.pieces if piece.type in (2, 3, 4)]
    backend.add_special_tokens([special_token(token) for token in special])
    return backend


def _text_steps() -> list[Any]:
    return [decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
