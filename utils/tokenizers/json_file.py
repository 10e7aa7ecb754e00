"""Tokenizers of the `tokenizers` library: Lumi's byte-level BPE, and those that are taken over.

tokenizer.json is the whole of it. Its post-processor adds nothing to a text, and says how two
documents are joined: by the end-of-document token. So the hash of the file covers that id as well.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import tokenizers
from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing

from utils.errors import DataError
from utils.files import sha256_bytes
from utils.tokenizers.control_tokens import PAD, ControlIds
from utils.tokenizers.tokenizer import JSON_FILE, Cut, Tokenizer

REMEDY = "pass it as --tokenizer_path with --reuse_tokenizer"


@dataclass(frozen=True, kw_only=True)
class JsonTokenizer(Tokenizer):
    """A tokenizer.json."""

    FILE: ClassVar[str] = JSON_FILE

    backend: tokenizers.Tokenizer

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a tokenizer.json that Lumi wrote.

        Raises:
            DataError: it is damaged, or made elsewhere.
        """
        return cls.from_bytes(path.read_bytes(), str(path))

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> Self:
        """Make one of the content of the file; `name` is for messages.

        Raises:
            DataError: as `read`.
        """
        backend, content = parse_json(data, name)
        eos = joining_token(content)
        pad_id = backend.token_to_id(PAD)
        eos_id = backend.token_to_id(eos) if eos else None
        if eos_id is None or pad_id is None:
            raise DataError(f"{name} is not a tokenizer that Lumi wrote: {REMEDY}")
        backend.encode_special_tokens = True
        return cls(
            sha256=sha256_bytes(data),
            type=type_of(content),
            ids=ControlIds(eos_id, pad_id),
            vocab_size=max(backend.get_vocab(with_added_tokens=True).values()) + 1,
            cut=Cut.BLANKS if _is_plain(content) else Cut.NOWHERE,
            backend=backend,
        )

    def text_pieces(self) -> list[bytes]:
        """Return the pieces that text is made of: no control or chat piece."""
        special = {token.content for token in self.backend.get_added_tokens_decoder().values()}
        vocabulary = self.backend.get_vocab(with_added_tokens=False)
        pieces = [piece for piece in vocabulary if piece not in special]
        if self.type != "byte_level":
            return [piece.encode() for piece in pieces]
        table = byte_characters()
        return [bytes(table[character] for character in piece) for piece in pieces]

    def control_tokens(self) -> dict[str, int]:
        """Return the ids that no text may give, by the string that stands for each."""
        added = self.backend.get_added_tokens_decoder()
        return {token.content: number for number, token in added.items() if token.special}

    def encode_part(self, text: str) -> list[int]:
        """Return the ids of a part of a text."""
        return self.backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`; control pieces give nothing."""
        return self.backend.decode(list(ids), skip_special_tokens=True)


def parse_json(data: bytes, name: str) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """Return a tokenizer and the content of its file.

    Raises:
        DataError: it is no tokenizer.json.
    """
    try:
        content = json.loads(data)
        backend = tokenizers.Tokenizer.from_str(data.decode("utf-8"))
    except Exception as error:  # the library raises no narrower one
        raise DataError(f"{name} is not a tokenizer.json: use another one") from error
    return backend, content


def type_of(content: dict[str, Any]) -> str:
    """Return byte_level, or the type of the model in lower case."""
    steps = content.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers", [steps])
    if any(step.get("type") == "ByteLevel" for step in steps):
        return "byte_level"
    return str(content["model"].get("type") or "unigram").lower()


def name_end(backend: tokenizers.Tokenizer, eos: str) -> None:
    """Make the post-processor add nothing, and name the end-of-document token."""
    backend.post_processor = TemplateProcessing(
        single="$A", pair=f"$A {eos} $B", special_tokens=[(eos, backend.token_to_id(eos))]
    )


def joining_token(content: dict[str, Any]) -> str | None:
    """Return the end-of-document token that `name_end` left; None in a file made elsewhere."""
    processor = content.get("post_processor") or {}
    single, pair = processor.get("single") or [], processor.get("pair") or []
    if len(single) == 1 and len(pair) == 3 and "SpecialToken" in pair[1]:
        return pair[1]["SpecialToken"]["id"]
    return None


def special_token(text: str) -> AddedToken:
    """Return a control token, which is looked for in a text before anything else is done."""
    return AddedToken(text, normalized=False, special=True)


def byte_characters() -> dict[str, int]:
    """Return the byte that each character of a byte-level piece stands for (GPT-2's table)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + n): b for n, b in enumerate(rest)}


def _is_plain(content: dict[str, Any]) -> bool:
    """Return whether it is GPT-2's byte-level BPE, and nothing else looks at the text.

    GPT-2 cuts a text before merging. Blanks and line ends stand at the front of its parts only, and
    the last of a run goes with what follows: so a text may be cut in front of any such run.
    """
    model, step = content["model"], content.get("pre_tokenizer") or {}
    return (
        step.get("type") == "ByteLevel"
        and not step.get("add_prefix_space", True)
        and step.get("use_regex", True)
        and content.get("normalizer") is None
        and model.get("type") == "BPE"
        and not model.get("continuing_subword_prefix")
        and not model.get("end_of_word_suffix")
        and all(token["special"] for token in content["added_tokens"])
    )
