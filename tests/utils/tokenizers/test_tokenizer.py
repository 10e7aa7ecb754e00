"""One tokenizer in every library, whatever its type."""

import gzip
import itertools
import json

import numpy as np
import pytest
import sentencepiece
import tokenizers

from utils.chat.templates import TextEncoder
from utils.data.tokens.word_encoder import WordEncoder
from utils.errors import DataError
from utils.tokenizers.control_tokens import CHAT_TOKENS, CONTROL_TOKENS, EOS_ID, ControlIds
from utils.tokenizers.json_file import byte_characters
from utils.tokenizers.language_samples import bytes_per_token, language_samples
from utils.tokenizers.load import load_tokenizer
from utils.tokenizers.sentencepiece import PARTS, SCORE_STEPS, read_proto
from utils.tokenizers.tokenizer import Cut
from utils.tokenizers.training import train_tokenizer
from utils.tokenizers.transformers_files import (
    check_agreement,
    load_hf_tokenizer,
    save_hf_tokenizer,
)

TYPES = ("bpe", "unigram", "byte_level")
TRICKY = [
    "  leading spaces",
    "\n\n    indented\n\ttab",
    "caf\u00e9 \u2603 \U0001f600 \u4e2d\u6587",
    "a literal <|im_end|> and <|im_start|>user",
    "</s> and <s> and <pad> as text, <0x41> too",
    "",
    " ",
    "x = {'a': [1, 2]}  # comment",
    "aaaaaaaaaaaaaaaa -------------- =====",
    "it's we'll 'tis x't",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tokenizer_dir, texts):
    """Return type -> folder of a tokenizer of 600 pieces."""
    root = tmp_path_factory.mktemp("types")
    for kind in ("unigram", "byte_level"):
        train_tokenizer(texts, root / kind, 600, kind)
    return {"bpe": tokenizer_dir, **{kind: root / kind for kind in ("unigram", "byte_level")}}


@pytest.fixture(params=TYPES)
def folder(folders, request):
    return folders[request.param]


@pytest.fixture
def tokenizer(folder):
    return load_tokenizer(folder)


def by_the_library(folder):
    """Return the ids by the library itself, from the frozen file and nothing of ours."""
    if (folder / "tokenizer.model").is_file():
        return sentencepiece.SentencePieceProcessor(
            model_file=str(folder / "tokenizer.model")
        ).encode
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    return lambda text: backend.encode(text).ids


def check(folder, texts, batch=200):
    """Return how many texts have other ids in one library, or do not come back."""
    tokenizer, theirs = load_tokenizer(folder), load_hf_tokenizer(folder)
    library, words, wrong = by_the_library(folder), WordEncoder(tokenizer), 0
    for start in range(0, len(texts), batch):
        part = texts[start : start + batch]
        rows, lengths = words.encode(part)
        exported = theirs(part, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        ends = np.cumsum(lengths)[:-1]
        for text, row, other in zip(part, np.split(rows, ends), exported, strict=True):
            ids = tokenizer.encode(text)
            plain = any(token in text for token in CONTROL_TOKENS) or library(text) == ids
            same = row.tolist() == [*ids, EOS_ID] and ids == other and plain
            wrong += not (same and tokenizer.decode(ids) == theirs.decode(other) == text)
    return wrong


def test_every_library_gives_the_same_ids_and_decoding_is_lossless(folder, texts):
    assert check(folder, [*TRICKY, *texts, *language_samples().values()]) == 0


def test_user_text_never_becomes_a_control_id(folder, tokenizer):
    encoder = TextEncoder(load_hf_tokenizer(folder))
    control = set(tokenizer.control_tokens().values())
    assert control >= {1, 2, 3, 4, 5, 11}
    for token in CONTROL_TOKENS:
        for text in (token, f"a {token} b {token}{token}", f"x{token}"):
            ids = tokenizer.encode(text)
            assert not {*control, 0} & set(ids)
            assert encoder.encode(text) == ids and tokenizer.decode(ids) == text
    assert tokenizer.decode([EOS_ID, 4, *tokenizer.encode("a"), 5]) == "a"


def test_ids_of_the_control_pieces_are_fixed(folder, tokenizer):
    theirs = load_hf_tokenizer(folder)
    assert theirs.convert_tokens_to_ids(list(CONTROL_TOKENS)) == list(range(12))
    assert tokenizer.ids == ControlIds(eos=2, pad=3) and tokenizer.vocab_size == 600
    assert (theirs.unk_token_id, theirs.pad_token_id) == (0, 3)
    assert theirs.bos_token_id == theirs.eos_token_id == EOS_ID
    assert theirs.encode("hello") == tokenizer.encode("hello")


def test_the_class_of_transformers_is_that_of_the_model(folders):
    """A unigram model in Llama's class, which merges pairs, would give other ids."""
    from transformers import LlamaTokenizer

    text = language_samples()["English"]
    wanted = sentencepiece.SentencePieceProcessor(
        model_file=str(folders["unigram"] / "tokenizer.model")
    ).encode(text)
    assert load_hf_tokenizer(folders["unigram"]).encode(text) == wanted
    names = {kind: type(load_hf_tokenizer(path)).__name__ for kind, path in folders.items()}
    assert names["bpe"] == LlamaTokenizer.__name__
    assert LlamaTokenizer.__name__ not in (names["unigram"], names["byte_level"])
    content = json.loads((folders["unigram"] / "tokenizer.json").read_text())
    assert content["model"]["type"] == "Unigram"


def test_files_that_disagree_are_found(folders, tmp_path):
    save_hf_tokenizer(folders["unigram"], tmp_path)
    check_agreement(tmp_path, TRICKY)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["model"]["vocab"] = [[piece, -1.0] for piece, _ in content["model"]["vocab"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="give different ids"):
        check_agreement(tmp_path, TRICKY)


def test_a_copy_in_a_checkpoint_is_the_same(folder, tokenizer, tmp_path):
    save_hf_tokenizer(folder, tmp_path, "{{ messages }}")
    assert load_tokenizer(tmp_path).sha256 == tokenizer.sha256
    assert load_hf_tokenizer(tmp_path).chat_template == "{{ messages }}"
    assert check(tmp_path, TRICKY) == 0


def test_training_is_deterministic(folders, tmp_path, texts):
    for kind, folder in folders.items():
        again = train_tokenizer(texts, tmp_path / kind, 600, kind)
        assert again.sha256 == load_tokenizer(folder).sha256, kind


def test_sums_of_unigram_scores_are_exact(folders):
    scores = [piece.score for piece in read_proto(folders["unigram"] / "tokenizer.model").pieces]
    assert all((score * SCORE_STEPS).is_integer() for score in scores)
    assert len({score for score in scores if score}) > 100
    text = ("\u4e2d word  two\n" * 900) + "x" * 3000 + " y" * 3000
    parts = PARTS.findall(text)
    assert "".join(parts) == text and max(map(len, parts)) == 3000
    assert sorted(map(len, parts))[-2] <= 2000


def test_how_texts_may_be_cut(folders):
    assert load_tokenizer(folders["bpe"]).cut is load_tokenizer(folders["unigram"]).cut
    assert load_tokenizer(folders["byte_level"]).cut is Cut.BLANKS


def test_a_byte_level_piece_is_bytes():
    table = byte_characters()
    assert sorted(table.values()) == list(range(256))
    assert set(table) == set(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    assert (table["\u0120"], table["\u010a"], table["A"]) == (32, 10, 65)


def test_languages_are_measured_in_bytes_per_token(tokenizer):
    found = bytes_per_token(tokenizer)
    assert list(found) == ["English", "German", "French", "Russian", "Chinese"]
    text = language_samples()["German"]
    assert "W\u00fcrde" in text and 1000 < len(text.encode()) < 2000
    assert found["German"] == round(len(text.encode()) / len(tokenizer.encode(text)), 4)
    assert found["English"] > found["Chinese"]  # it has seen English only


@pytest.mark.parametrize("kind", TYPES)
def test_too_little_text_says_what_to_do(tmp_path, kind):
    with pytest.raises(DataError, match=r"cannot train a vocabulary of 5000 .* lower --vocab_size"):
        train_tokenizer(["a few words only"], tmp_path, 5000, kind)


def test_a_broken_file_is_one_line(tmp_path):
    with pytest.raises(DataError, match="not found: run `make prepare`"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match=r"is not a tokenizer\.json"):
        load_tokenizer(tmp_path)
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError, match="not a tokenizer that Lumi wrote: pass it as"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"garbage")
    with pytest.raises(DataError, match="is not a SentencePiece model"):
        load_tokenizer(tmp_path)


def test_chat_tokens_are_control_tokens(tokenizer):
    assert [tokenizer.control_tokens()[token] for token in CHAT_TOKENS] == [4, 5]


def documents(shared_data):
    """Yield real documents: 55 languages, Wikipedia, and parts of novels and stories."""
    for path in sorted((shared_data / "multilingual/flores200").iterdir()):
        yield path.read_text(encoding="utf-8")[:5000]
    for path in sorted((shared_data / "pretrain").rglob("*")):
        if path.name.endswith(".jsonl.gz"):
            with gzip.open(path, "rt", encoding="utf-8") as file:
                rows = (json.loads(line)["text"] for line in itertools.islice(file, 2000))
                yield from (text[at : at + 3000] for text in rows for at in (0, 3000))
        elif path.suffix == ".txt":
            text = path.read_text(encoding="utf-8", errors="replace")
            yield from (text[at : at + 1500] for at in range(0, min(len(text), 200_000), 1500))


@pytest.mark.slow
@pytest.mark.parametrize("kind", TYPES)
def test_ten_thousand_real_documents_have_no_mismatch(shared_data, tmp_path, kind):
    from utils.data.cleaning.text import clean_text

    texts = [text for raw in documents(shared_data) if (text := clean_text(raw))]
    texts = texts[:: len(texts) // 10_000]
    assert len(texts) >= 10_000
    train_tokenizer(texts[::7], tmp_path, 8000, kind)
    assert check(tmp_path, texts) == 0
