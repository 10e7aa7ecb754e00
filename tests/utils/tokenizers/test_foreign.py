"""Tokenizers of others keep their ids, get what they lack, or are refused."""

import io
import json

import pytest
import sentencepiece
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from utils.data.tokens.word_encoder import WordEncoder
from utils.errors import DataError
from utils.files import sha256_file
from utils.tokenizers.control_tokens import CHAT_TOKENS, ControlIds
from utils.tokenizers.foreign import find_tokenizer, probe_texts, take_over
from utils.tokenizers.load import load_tokenizer
from utils.tokenizers.tokenizer import Cut
from utils.tokenizers.training import train_tokenizer

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def bpe(texts, special, **changes):
    """A byte-level BPE as `tokenizers` trains it, its special tokens behind the vocabulary."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    for name, value in changes.items():
        setattr(backend, name, value)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    backend.add_special_tokens(special)
    return backend


def saved(backend, folder, **names):
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(folder)
    return folder


@pytest.fixture
def gpt2(tmp_path, texts):
    backend = bpe(texts, ["<|endoftext|>"], post_processor=processors.ByteLevel())
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    return saved(backend, tmp_path / "gpt2", **names)


@pytest.fixture
def llama3(tmp_path, texts):
    steps = [
        pre_tokenizers.Split(Regex(LLAMA_3), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    backend = bpe(texts, special, pre_tokenizer=pre_tokenizers.Sequence(steps))
    begin = ("<|begin_of_text|>", backend.token_to_id("<|begin_of_text|>"))
    backend.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", pair=None, special_tokens=[begin]
    )
    names = dict(bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
    return saved(backend, tmp_path / "llama3", **names)


def llama_model(texts, path, **options):
    """A model with the settings of Llama's: a blank in front of each text, no padding."""
    model = io.BytesIO()
    settings = dict(
        model_type="bpe", vocab_size=600, byte_fallback=True, split_digits=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True, minloglevel=2,
    )  # fmt: skip
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in texts for line in text.splitlines()),
        model_writer=model, **(settings | options),
    )  # fmt: skip
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(model.getvalue())
    return path


def check_everywhere(folder, original, texts):
    """Hold the ids of `original` against Lumi's, those of whole documents, and transformers'."""
    tokenizer, theirs = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    encoder = WordEncoder(tokenizer)
    for text in [*probe_texts(), *texts[:60], "", "  a", "\n\nb \n"]:
        ids = original(text)
        assert tokenizer.encode(text) == ids, text
        assert theirs.encode(text, split_special_tokens=True) == ids, text
        assert encoder.encode([text])[0].tolist() == [*ids, tokenizer.eos_id], text
        assert tokenizer.decode(ids) == theirs.decode(ids) == text
    control = {*tokenizer.control_tokens().values()}
    assert {theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id} <= control
    for name in [*tokenizer.control_tokens(), "</s>"]:
        for text in (name, f"a {name}{name} b", f"{name[1:]}{name}"):
            ids = tokenizer.encode(text)
            assert not control & set(ids), text
            assert theirs.encode(text, split_special_tokens=True) == ids
            assert encoder.encode([text])[0].tolist() == [*ids, tokenizer.eos_id]
    assert theirs.convert_tokens_to_ids(list(CHAT_TOKENS)) == [
        tokenizer.control_tokens()[token] for token in CHAT_TOKENS
    ]


def raw(folder):
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    return lambda text: backend.encode(text, add_special_tokens=False).ids


def test_a_gpt2_folder_keeps_its_ids_and_gets_chat_tokens_behind_them(gpt2, tmp_path, texts):
    tokenizer = take_over(gpt2, tmp_path / "ours")
    assert (tokenizer.type, tokenizer.cut) == ("byte_level", Cut.BLANKS)
    assert tokenizer.ids == ControlIds(eos=500, pad=501) and tokenizer.vocab_size == 504
    assert [tokenizer.control_tokens()[token] for token in CHAT_TOKENS] == [502, 503]
    assert tokenizer.sha256 == sha256_file(tmp_path / "ours" / "tokenizer.json")
    check_everywhere(tmp_path / "ours", raw(gpt2), texts)


def test_a_llama_3_folder_loses_the_token_it_would_put_in_front(llama3, tmp_path, texts):
    assert AutoTokenizer.from_pretrained(llama3).encode("a")[0] == 500
    tokenizer = take_over(llama3, tmp_path / "ours")
    assert tokenizer.ids == ControlIds(eos=502, pad=503) and tokenizer.cut is Cut.NOWHERE
    check_everywhere(tmp_path / "ours", raw(llama3), texts)


def test_the_end_of_document_is_part_of_what_is_hashed(llama3):
    before = find_tokenizer(llama3).tokenizer
    config = json.loads((llama3 / "tokenizer_config.json").read_text())
    changed = config | {"eos_token": {"content": "<|end_of_text|>"}}
    (llama3 / "tokenizer_config.json").write_text(json.dumps(changed))
    after = find_tokenizer(llama3).tokenizer
    assert (before.eos_id, after.eos_id) == (502, 501)
    assert before.sha256 != after.sha256


@pytest.mark.parametrize(
    "marks", [[], ["\u2581<PRE>", "\u2581<SUF>", "\u2581<MID>", "\u2581<EOT>"]]
)
def test_a_llama_model_keeps_its_ids_and_the_blank_in_front(tmp_path, texts, marks):
    path = llama_model(texts, tmp_path / "llama.model", user_defined_symbols=marks)
    tokenizer = take_over(path, tmp_path / "ours")
    assert (tokenizer.type, tokenizer.prefix) == ("bpe", " ")
    assert tokenizer.ids == ControlIds(eos=2, pad=600) and tokenizer.vocab_size == 603
    original = sentencepiece.SentencePieceProcessor(model_file=str(path))
    check_everywhere(tmp_path / "ours", original.encode, texts)
    again = take_over(tmp_path / "ours", tmp_path / "again")
    assert again.sha256 == tokenizer.sha256


def test_taking_over_again_gives_the_same_bytes(gpt2, llama3, tokenizer_dir, tmp_path):
    for number, source in enumerate((gpt2, llama3, tokenizer_dir)):
        first = take_over(source, tmp_path / f"{number}")
        second = take_over(tmp_path / f"{number}", tmp_path / f"{number}-again")
        assert (
            first.sha256 == second.sha256 == find_tokenizer(tmp_path / f"{number}").tokenizer.sha256
        )
    assert first.sha256 == load_tokenizer(tokenizer_dir).sha256


def test_tokens_that_were_added_to_a_model_later_count(tmp_path, texts):
    folder = tmp_path / "chat"
    llama_model(texts, folder / "tokenizer.model")
    ours = take_over(folder, tmp_path / "plain")
    assert ours.FILE == "tokenizer.model"
    theirs = AutoTokenizer.from_pretrained(tmp_path / "plain")
    theirs.add_special_tokens({"eos_token": "<|done|>"})
    theirs.save_pretrained(folder)
    tokenizer = take_over(folder, tmp_path / "ours")
    assert tokenizer.FILE == "tokenizer.json"
    assert tokenizer.eos_id == theirs.convert_tokens_to_ids("<|done|>")


def refused(folder, message):
    with pytest.raises(DataError, match=message):
        find_tokenizer(folder)


def test_what_cannot_be_taken_over_rightly_is_refused(tmp_path, texts):
    refused(tmp_path / "nowhere", "holds neither tokenizer.model nor tokenizer.json")
    lower = bpe(texts, ["<end>"], normalizer=normalizers.Lowercase())
    refused(saved(lower, tmp_path / "lower", eos_token="<end>"), "loses text")
    nameless = bpe(texts, ["<end>"])
    refused(saved(nameless, tmp_path / "nameless"), "names no end-of-document token")
    dropout = bpe(texts, ["<end>"], model=models.BPE(dropout=0.1))
    refused(saved(dropout, tmp_path / "dropout", eos_token="<end>"), "merges at random")
    spaced = pre_tokenizers.ByteLevel(add_prefix_space=True)
    prefixed = bpe(texts, ["<end>"], pre_tokenizer=spaced)
    refused(saved(prefixed, tmp_path / "prefixed", eos_token="<end>"), "loses text")
    endless = llama_model(texts, tmp_path / "endless.model", eos_id=-1)
    refused(endless, "has no end-of-document token")
    folded = llama_model(texts, tmp_path / "nfkc.model", normalization_rule_name="nmt_nfkc")
    refused(folded, "loses text")
    unigram = llama_model(texts, tmp_path / "unigram.model", model_type="unigram")
    refused(unigram, "depend on how a library rounds its scores")
    words = llama_model(texts, tmp_path / "word.model", model_type="word", byte_fallback=False)
    refused(words, "neither BPE nor unigram")


def test_a_vocabulary_that_spells_its_control_tokens_is_refused(tmp_path, texts):
    folder = tmp_path / "unigram"
    train_tokenizer(texts, folder, 600, "unigram")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"][2][1] = 0.0  # as T5's has it: the best way to spell </s>
    (folder / "tokenizer.json").write_text(json.dumps(content))
    refused(folder / "tokenizer.json", "takes control tokens in a text for its own")
