"""Takes over a tokenizer: one of Lumi's, a Hugging Face folder, or a SentencePiece model.

Its vocabulary and ids stay. Chat tokens and padding that it lacks are added behind it, its own
end-of-document token ends the documents, and whatever it adds around a text is switched off. What
cannot be taken over without losing text or mixing up control tokens is refused. Taking over twice
gives the same bytes, so a prepared folder or a checkpoint serves as well as the original.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.errors import DataError
from utils.files import read_json, sha256_bytes
from utils.tokenizers.control_tokens import CHAT_TOKENS, PAD
from utils.tokenizers.json_file import (
    JsonTokenizer,
    joining_token,
    name_end,
    parse_json,
    special_token,
)
from utils.tokenizers.language_samples import language_samples
from utils.tokenizers.load import load_tokenizer
from utils.tokenizers.sentencepiece import (
    CONTROL,
    USER_DEFINED,
    SentencePieceTokenizer,
    read_proto,
)
from utils.tokenizers.tokenizer import JSON_FILE, MODEL_FILE, Tokenizer
from utils.tokenizers.transformers_files import check_agreement, save_hf_tokenizer

CONFIG_FILES = ("tokenizer_config.json", "special_tokens_map.json")
ADDED = (PAD, *CHAT_TOKENS)
"""Tokens that are added where they are missing."""
ODD_TEXTS = (
    "x = {'a': [1, 2]}  # comment",
    "  two blanks, \ttab,\n\n  lines \n",
    "It's 12345.67 \u00d7 10\u207b\u2079 m\u00b2",
    "caf\u00e9 \u2603 \U0001f600 \u4e2d\u6587 \u3000\u00a0end",
    " ",
    "A",
)


@dataclass(frozen=True)
class Foreign:
    """Tokenizer that is taken over."""

    tokenizer: Tokenizer
    data: bytes
    """Content of the frozen file."""


def find_tokenizer(path: Path) -> Foreign:
    """Read the tokenizer that `path`, a folder or a file, means, and make it one of Lumi's.

    Raises:
        DataError: there is none, or it cannot be taken over; the message says why.
    """
    path = path.expanduser()
    folder = path.parent if path.is_file() else path
    model = path if path.suffix == ".model" else folder / MODEL_FILE
    described = folder / JSON_FILE
    if model.is_file() and not (path.name == JSON_FILE or _has_more(described, model)):
        found, encode = _from_model(model)
    elif described.is_file():
        found, encode = _from_json(described)
    else:
        raise DataError(
            f"{path} holds neither {MODEL_FILE} nor {JSON_FILE}: pass a folder with one of them, "
            "such as what save_pretrained of transformers writes"
        )
    _check(found.tokenizer, encode, path)
    return found


def take_over(path: Path, folder: Path) -> Tokenizer:
    """Write the tokenizer that `path` means into `folder`, with its Hugging Face files.

    Raises:
        DataError: as `find_tokenizer`.
    """
    found = find_tokenizer(path)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / found.tokenizer.FILE).write_bytes(found.data)
    save_hf_tokenizer(folder, folder)
    check_agreement(folder, probe_texts())
    return load_tokenizer(folder)


def probe_texts() -> list[str]:
    """Return texts on which a tokenizer is tried."""
    return [*language_samples().values(), *ODD_TEXTS]


def _has_more(described: Path, model: Path) -> bool:
    """Return whether tokenizer.json has tokens that tokenizer.model lacks, or that is no model."""
    if not described.is_file():
        return False
    try:
        pieces = len(read_proto(model).pieces)
    except DataError:  # a file of tiktoken has the same name
        return True
    backend, _ = parse_json(described.read_bytes(), str(described))
    return backend.get_vocab_size() > pieces


def _from_model(path: Path) -> tuple[Foreign, Callable[[str], list[int]]]:
    proto, data = read_proto(path), path.read_bytes()
    original = SentencePieceTokenizer.from_proto(proto, str(path), "")
    names = {piece.piece for piece in proto.pieces}
    wanted = [token for token in CHAT_TOKENS if token not in names]
    if original.ids.pad < 0:
        wanted.insert(0, PAD)
    if wanted:
        if PAD in wanted and PAD in names:
            raise DataError(f"{path} has {PAD} as ordinary text: use another tokenizer")
        for token in wanted:
            kind = CONTROL if token == PAD else USER_DEFINED
            proto.pieces.add(piece=token, score=0.0, type=kind)
        proto.trainer_spec.vocab_size = len(proto.pieces)
        data = proto.SerializeToString(deterministic=True)
    tokenizer = SentencePieceTokenizer.from_proto(proto, str(path), sha256_bytes(data))
    return Foreign(tokenizer, data), _sentencepiece_itself(path)


def _sentencepiece_itself(path: Path) -> Callable[[str], list[int]]:
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=str(path)).encode


def _from_json(path: Path) -> tuple[Foreign, Callable[[str], list[int]]]:
    data = path.read_bytes()
    backend, content = parse_json(data, str(path))
    original, _ = parse_json(data, str(path))
    if content["model"].get("dropout"):
        raise DataError(f"{path} merges at random (dropout): set it to null")
    eos = joining_token(content) or _named_end(path.parent)
    if eos is None or backend.token_to_id(eos) is None:
        raise DataError(
            f'{path.parent} names no end-of-document token: add "eos_token" to {CONFIG_FILES[0]}'
        )
    special = {token["content"] for token in content["added_tokens"] if token["special"]}
    if joining_token(content) is None or not {eos, *ADDED} <= special:
        backend.no_truncation()
        backend.no_padding()
        missing = [token for token in (eos, *ADDED) if token not in special]
        backend.add_special_tokens([special_token(token) for token in missing])
        name_end(backend, eos)
        data = backend.to_str(pretty=True).encode()
    original.encode_special_tokens = True

    def encode(text: str) -> list[int]:
        return original.encode(text, add_special_tokens=False).ids

    return Foreign(JsonTokenizer.from_bytes(data, str(path)), data), encode


def _named_end(folder: Path) -> str | None:
    """Return the end-of-document token that the files beside tokenizer.json name."""
    for name in CONFIG_FILES:
        if (folder / name).is_file():
            eos: Any = read_json(folder / name).get("eos_token")
            if eos is not None:
                return eos["content"] if isinstance(eos, dict) else str(eos)
    return None


def _check(tokenizer: Tokenizer, encode: Callable[[str], list[int]], path: Path) -> None:
    """Check that texts keep their ids and come back, and that none gives a control id.

    Raises:
        DataError: one does not; the message has it.
    """
    for text in probe_texts():
        ids = tokenizer.encode(text)
        if ids != encode(text):
            raise DataError(f"{path} gives other ids for {text[:40]!r} than here: use another one")
        if (back := tokenizer.decode(ids)) != text:
            at = next(
                (n for n, pair in enumerate(zip(text, back, strict=False)) if len(set(pair)) > 1), 0
            )
            raise DataError(
                f"{path} loses text ({text[at : at + 20]!r} comes back as "
                f"{back[at : at + 20]!r}): use one that decodes what it encoded"
            )
    control = tokenizer.control_tokens()
    made = tokenizer.encode(" ".join(control) + "".join(control))
    if set(made) & set(control.values()) or tokenizer.ids.eos == tokenizer.ids.pad:
        raise DataError(f"{path} takes control tokens in a text for its own: use another tokenizer")
