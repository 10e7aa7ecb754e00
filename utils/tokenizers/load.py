"""Reads the frozen tokenizer of a folder, whatever library it is made of."""

from pathlib import Path

from utils.tokenizers.json_file import JsonTokenizer
from utils.tokenizers.sentencepiece import SentencePieceTokenizer
from utils.tokenizers.tokenizer import MODEL_FILE, Tokenizer, frozen_file


def load_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of a folder that Lumi wrote.

    Raises:
        DataError: its frozen file is missing, damaged or not Lumi's.
    """
    path = frozen_file(folder)
    kind = SentencePieceTokenizer if path.name == MODEL_FILE else JsonTokenizer
    return kind.read(path)
