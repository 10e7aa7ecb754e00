"""A frozen tokenizer: one interface, whatever library it is made of.

decode(encode(x)) == x for every cleaned text, and no text gives a control id. One separator (EOS,
`</s>` in Lumi's own) ends each document and serves as BOS too (as in GPT-2), so that evaluators
that begin with BOS begin with a token that was trained. Knows nothing about conversations: see
`utils.chat.templates`; nor about transformers: see `utils.tokenizers.transformers_files`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import ClassVar, Self

from utils.errors import DataError
from utils.files import sha256_file
from utils.tokenizers.control_tokens import ControlIds

MODEL_FILE = "tokenizer.model"
JSON_FILE = "tokenizer.json"


class Cut(Enum):
    """Places where a text may be cut: no piece has both sides, so its parts encode on their own."""

    CLASSES = "between letters, other characters and line ends"
    BLANKS = "in front of blanks and line ends that follow something else"
    NOWHERE = "nowhere"


@dataclass(frozen=True, kw_only=True)
class Tokenizer(ABC):
    """A frozen tokenizer. Literal control strings in a text stay plain text."""

    FILE: ClassVar[str]
    """Name of the frozen file; transformers has others beside it that say the same."""

    sha256: str
    """Hash of the frozen file; it is recorded in every manifest and checkpoint."""
    type: str
    """bpe, unigram or byte_level."""
    ids: ControlIds
    vocab_size: int
    """Highest id plus one."""
    prefix: str = ""
    """Put in front of every text that is not empty (Llama's "dummy prefix")."""
    cut: Cut = Cut.NOWHERE

    @classmethod
    @abstractmethod
    def read(cls, path: Path) -> Self:
        """Read the frozen file.

        Raises:
            DataError: it is damaged, or not one that Lumi wrote.
        """

    @property
    def eos_id(self) -> int:
        """Id that ends each document."""
        return self.ids.eos

    @property
    def summary(self) -> dict[str, str | int]:
        """Keys of the manifest of a prepared folder that identify it."""
        return {
            "tokenizer_sha256": self.sha256,
            "tokenizer_type": self.type,
            "vocab_size": self.vocab_size,
            "eos_id": self.ids.eos,
            "pad_id": self.ids.pad,
        }

    @abstractmethod
    def text_pieces(self) -> list[bytes]:
        """Return the pieces that text is made of: no control, chat or byte piece."""

    @abstractmethod
    def control_tokens(self) -> dict[str, int]:
        """Return the ids that no text may give, by the string that stands for each."""

    @abstractmethod
    def encode_part(self, text: str) -> list[int]:
        """Return the ids of a part of a text, cut as `cut` allows; `prefix` is not added."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`, without BOS or EOS and without any control id."""
        return self.encode_part(self.prefix + text) if text else []

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`; control pieces give nothing."""


def frozen_file(folder: Path) -> Path:
    """Return the file of a tokenizer folder whose hash identifies it.

    Raises:
        DataError: there is none.
    """
    for name in (MODEL_FILE, JSON_FILE):
        if (folder / name).is_file():
            return folder / name
    raise DataError(
        f"{folder / MODEL_FILE} not found: run `make prepare`, or pass a folder that has it"
    )


def tokenizer_sha256(folder: Path) -> str:
    """Return the hash of the tokenizer of a folder.

    Raises:
        DataError: there is none.
    """
    return sha256_file(frozen_file(folder))
