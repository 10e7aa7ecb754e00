"""Runs SentencePiece models, BPE and unigram, such that every library gives the same ids.

A model that adds a blank in front of each text (Llama's do) is run without that, and the blank is
put there by us, so that a text can be encoded in parts. Chat tokens ("user-defined" pieces, which
SentencePiece looks for in every text) are run as control pieces, which no text gives.

A unigram model takes the segmentation with the best sum of scores, in fp32 here and in fp64 in
transformers. Its scores are multiples of 1/SCORE_STEPS and texts are cut into parts whose sums fp32
holds exactly, so that equal sums are equal everywhere, and every library takes the same one of two.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import sentencepiece
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2

from utils.errors import DataError
from utils.files import sha256_file
from utils.tokenizers.control_tokens import ControlIds
from utils.tokenizers.tokenizer import MODEL_FILE, Cut, Tokenizer

SPACE_MARK = "\u2581"
"""Stands for a blank in the pieces."""
TYPES = {1: "unigram", 2: "bpe"}
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
SCORE_STEPS = 256
"""fp32 holds multiples of 1/256 exactly up to 65,536."""
PART_CHARACTERS = 2000
"""Longest part of a text for a unigram model: at about -30 a character the sum fits."""
_PLACE = r"(?:\Z|(?<=\n)|(?<=\S)(?= ))"
PARTS = re.compile(rf"(?s).{{1,{PART_CHARACTERS}}}{_PLACE}|.+?{_PLACE}")
"""Cut behind line ends, or in front of a blank behind something else: no piece has both sides."""


@dataclass(frozen=True, kw_only=True)
class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model."""

    FILE: ClassVar[str] = MODEL_FILE

    processor: sentencepiece.SentencePieceProcessor

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a model.

        Raises:
            DataError: it is none, of another type, or has no end-of-document token.
        """
        return cls.from_proto(read_proto(path), str(path), sha256_file(path))

    @classmethod
    def from_proto(cls, proto: Any, name: str, sha256: str) -> Self:
        """Make one of a parsed model; `name` is for messages.

        Raises:
            DataError: as `read`.
        """
        kind = TYPES.get(proto.trainer_spec.model_type)
        if kind is None:
            raise DataError(f"{name} is neither BPE nor unigram: use one that is")
        if kind == "unigram" and not _is_exact(proto):
            raise DataError(
                f"the ids of {name}, a unigram model, depend on how a library rounds its scores: "
                "train one with --tokenizer_type unigram"
            )
        plain = parse_proto(proto.SerializeToString())
        plain.normalizer_spec.add_dummy_prefix = False
        for piece in plain.pieces:
            if piece.type == USER_DEFINED:
                piece.type = CONTROL
        processor = sentencepiece.SentencePieceProcessor(model_proto=plain.SerializeToString())
        if processor.eos_id() < 0:
            raise DataError(f"{name} has no end-of-document token: use a tokenizer that has one")
        return cls(
            sha256=sha256,
            type=kind,
            ids=ControlIds(processor.eos_id(), processor.pad_id()),
            vocab_size=processor.get_piece_size(),
            prefix=" " if proto.normalizer_spec.add_dummy_prefix else "",
            cut=Cut.CLASSES,
            processor=processor,
        )

    def text_pieces(self) -> list[bytes]:
        """Return the pieces that text is made of: no control, chat or byte piece."""
        processor = self.processor
        return [
            processor.id_to_piece(number).replace(SPACE_MARK, " ").encode()
            for number in range(self.vocab_size)
            if not (
                processor.is_control(number)
                or processor.is_unknown(number)
                or processor.is_byte(number)
            )
        ]

    def control_tokens(self) -> dict[str, int]:
        """Return the ids that no text may give, by the string that stands for each."""
        processor = self.processor
        return {
            processor.id_to_piece(number).replace(SPACE_MARK, " "): number
            for number in range(self.vocab_size)
            if processor.is_control(number)
        }

    def encode_part(self, text: str) -> list[int]:
        """Return the ids of a part of a text."""
        if self.type == "unigram" and len(text) > PART_CHARACTERS:
            parts = self.processor.encode(PARTS.findall(text))
            return [number for ids in parts for number in ids]
        return self.processor.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`; control pieces give nothing."""
        return self.processor.decode(list(ids)).removeprefix(self.prefix)


def read_proto(path: Path) -> Any:
    """Return a parsed SentencePiece model.

    Raises:
        DataError: it is none.
    """
    try:
        proto = parse_proto(path.read_bytes())
        sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
    except (DecodeError, RuntimeError, OSError) as error:
        raise DataError(f"{path} is not a SentencePiece model: prepare the data again") from error
    return proto


def parse_proto(data: bytes) -> Any:
    """Return a SentencePiece model, parsed."""
    return sentencepiece_model_pb2.ModelProto.FromString(data)  # pyright: ignore[reportAttributeAccessIssue]


def make_exact(proto: Any) -> None:
    """Round the scores of a unigram model to multiples of 1/SCORE_STEPS."""
    for piece in proto.pieces:
        if piece.type == NORMAL:
            piece.score = round(piece.score * SCORE_STEPS) / SCORE_STEPS


def _is_exact(proto: Any) -> bool:
    return all((piece.score * SCORE_STEPS).is_integer() for piece in proto.pieces)
