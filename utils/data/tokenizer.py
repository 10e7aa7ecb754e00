"""SentencePiece BPE: trained once, frozen by its hash, and the same in every library.

With these settings sentencepiece == transformers == llama.cpp, and decode(encode(x)) == x for every
text without U+2581 (cleaning removes it). One separator, `</s>`, ends each document and serves as
BOS too (as in GPT-2), so that evaluators that begin with BOS begin with a token that was trained.
Knows nothing about conversations: see `utils.data.templates`.
"""

import io
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece

from utils.errors import DataError
from utils.files import sha256_file

UNK_ID, BOS_ID, EOS_ID, PAD_ID = 0, 1, 2, 3
EOS = "</s>"
CHAT_TOKENS = ("<|im_start|>", "<|im_end|>")
SPARE_TOKENS = tuple(f"<|spare_{number}|>" for number in range(6))
"""Reserved for later fine-tuning, so that the embedding need not grow."""
CONTROL_TOKENS = ("<unk>", "<s>", EOS, "<pad>", *CHAT_TOKENS, *SPARE_TOKENS)
CONTROL_MARK = "<|"
"""In every chat token: a text without it has none."""
SPACE_MARK = "\u2581"
"""Stands for a blank in the pieces of a SentencePiece model."""
MODEL_FILE = "tokenizer.model"
MAX_SENTENCE_BYTES = 16_384
"""SentencePiece leaves out longer training lines; documents are cut into lines first."""


@dataclass(frozen=True)
class Tokenizer:
    """A frozen SentencePiece model. Literal control strings in a text stay plain text."""

    processor: sentencepiece.SentencePieceProcessor
    sha256: str
    """Hash of tokenizer.model; it is recorded in every manifest and checkpoint."""

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Read tokenizer.model from `folder`.

        Raises:
            DataError: it is missing or not a SentencePiece model.
        """
        path = folder / MODEL_FILE
        if not path.is_file():
            raise DataError(f"{path} not found: run `make prepare`, or pass a folder that has it")
        try:
            processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (RuntimeError, OSError) as error:
            raise DataError(f"{path} is not a SentencePiece model: prepare the data again") from error
        return cls(processor, sha256_file(path))

    @property
    def vocab_size(self) -> int:
        """Number of pieces."""
        return self.processor.get_piece_size()

    def text_pieces(self) -> list[str]:
        """Return the pieces that text is made of: no control, chat or byte piece."""
        processor, special = self.processor, {*CHAT_TOKENS, *SPARE_TOKENS}
        pieces = [
            processor.id_to_piece(number).replace(SPACE_MARK, " ")
            for number in range(self.vocab_size)
            if not (
                processor.is_control(number)
                or processor.is_unknown(number)
                or processor.is_unused(number)
                or processor.is_byte(number)
            )
        ]
        return [piece for piece in pieces if piece not in special]

    def encode(self, text: str) -> list[int]:
        """Return the piece ids of `text`, without BOS or EOS and without any control id."""
        parts = _without_control_strings(text)
        return [piece for part in parts for piece in self.processor.encode(part)]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`; control pieces give nothing."""
        return self.processor.decode(list(ids))


def _without_control_strings(text: str) -> list[str]:
    """Split inside literal chat tokens, so that SentencePiece cannot see them as control pieces."""
    parts = [text]
    for token in (*CHAT_TOKENS, *SPARE_TOKENS):
        if token in text:
            parts = [piece for part in parts for piece in _split_inside(part, token)]
    return parts


def _split_inside(text: str, token: str) -> list[str]:
    first, *rest = text.split(token)
    pieces = [first]
    for part in rest:
        pieces[-1] += token[0]
        pieces.append(token[1:] + part)
    return pieces


def train_tokenizer(texts: Iterable[str], folder: Path, vocab_size: int) -> Tokenizer:
    """Train BPE on `texts`, write tokenizer.model and the Hugging Face files into `folder`.

    Deterministic: the same texts in the same order give the same bytes.

    Raises:
        DataError: the texts are too few for `vocab_size` pieces.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_lines(texts),
            model_writer=model,
            model_type="bpe",
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
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())[-160:]
        raise DataError(
            f"cannot train {vocab_size} pieces on this corpus ({reason}): lower --vocab_size"
        ) from error
    (folder / MODEL_FILE).write_bytes(model.getvalue())
    save_hf_tokenizer(folder, folder)
    return Tokenizer.load(folder)


def _lines(texts: Iterable[str]) -> Iterable[str]:
    """Yield lines short enough for the trainer, with their line end as part of the text."""
    for text in texts:
        for line in text.splitlines(keepends=True):
            for start in range(0, len(line), MAX_SENTENCE_BYTES // 4):
                yield line[start : start + MAX_SENTENCE_BYTES // 4]


def load_hf_tokenizer(folder: Path) -> Any:
    """Return the transformers tokenizer that equals tokenizer.model in `folder`."""
    from transformers import LlamaTokenizer

    return LlamaTokenizer.from_pretrained(
        folder,
        add_prefix_space=False,
        legacy=False,
        add_bos_token=False,
        add_eos_token=False,
        bos_token=EOS,
        eos_token=EOS,
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens=list(CHAT_TOKENS),
    )


def save_hf_tokenizer(source: Path, folder: Path, chat_template: str | None = None) -> None:
    """Write the tokenizer of `source` into `folder` for transformers (tokenizer.model included)."""
    if source != folder:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / MODEL_FILE, folder / MODEL_FILE)
    tokenizer = load_hf_tokenizer(folder)
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)
