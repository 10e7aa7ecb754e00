"""Each type of tokenizer through the scripts: prepared, pre-trained, tuned, asked."""

import json

import numpy as np
import pytest
import sentencepiece
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from utils.data.tokens.shards import TokenShards, iter_documents, read_dataset
from utils.files import read_json, sha256_file
from utils.tokenizers.control_tokens import CHAT_TOKENS
from utils.tokenizers.load import load_tokenizer
from utils.tokenizers.tokenizer import frozen_file

SHAPE = (
    "--n_layer 1 --d_model 32 --n_head 2 --d_ff 48 --vocab_size 1000 --sequence_length 64 "
    "--batch_size 4 --warmup_steps 1 --eval_tokens 400 --max_steps 2 --cpu --no_compile"
)
ODD = " </s> <|im_end|> <|endoftext|>"
CHATS = [
    {"prompt": f"What is {a} plus {b}?{ODD * (a % 2)}", "response": f"It is {a + b}."}
    for a in range(12)
    for b in range(12)
]


@pytest.fixture
def work(tmp_path, texts):
    (tmp_path / "texts").mkdir()
    odd = "Text that spells control tokens: </s> <|im_end|> <|im_start|>user <|endoftext|> <s>. "
    for number, text in enumerate([*texts, odd * 3, "caf\u00e9 \u4e2d\u6587 \U0001f600 " * 9]):
        (tmp_path / "texts" / f"{number:03d}.txt").write_text(text, encoding="utf-8")
    (tmp_path / "chats.json").write_text(json.dumps(CHATS))
    return tmp_path


def gpt2(work, texts):
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    backend.add_special_tokens(["<|endoftext|>"])
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    theirs = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    theirs.save_pretrained(work / "theirs")
    return work / "theirs"


def llama(work, texts):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in texts for line in text.splitlines()),
        model_prefix=str(work / "llama"), model_type="bpe", vocab_size=600, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
        allow_whitespace_only_pieces=True,
    )  # fmt: skip
    return work / "llama.model"


FOREIGN = {"gpt2": gpt2, "llama": llama}
EXPECTED = {
    # type, pieces, eos, pad, frozen file
    "bpe": ("bpe", 600, 2, 3, "tokenizer.model"),
    "unigram": ("unigram", 600, 2, 3, "tokenizer.model"),
    "byte_level": ("byte_level", 600, 2, 3, "tokenizer.json"),
    "gpt2": ("byte_level", 504, 500, 501, "tokenizer.json"),
    "llama": ("bpe", 603, 2, 600, "tokenizer.model"),
}


def run(run_script, stage, *flags):
    done = run_script(stage, *flags, timeout=300, env={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def check_prepared(folder, kind):
    """Hold the ids of the shards against the text beside them and against transformers."""
    manifest, tokenizer = read_dataset(folder), load_tokenizer(folder / "tokenizer")
    found = [manifest[key] for key in ("tokenizer_type", "vocab_size", "eos_id", "pad_id")]
    assert (*found, tokenizer.FILE) == EXPECTED[kind]
    assert manifest["tokenizer_sha256"] == sha256_file(frozen_file(folder / "tokenizer"))
    theirs = AutoTokenizer.from_pretrained(folder / "tokenizer")
    for split in ("train", "val"):
        shards = TokenShards.open(folder, split)
        ends = shards.document_offsets
        for number, document in enumerate(iter_documents(folder, split)):
            ids = shards.tokens[int(ends[number]) : int(ends[number + 1])].tolist()
            assert ids[-1] == manifest["eos_id"] == theirs.eos_token_id == shards.eos_id
            assert ids[:-1] == theirs.encode(document["text"], split_special_tokens=True)
            assert theirs.decode(ids[:-1]) == document["text"]
            assert not set(ids[:-1]) & set(tokenizer.control_tokens().values())
    stats = read_json(folder / "stats.json")["tokenizer"]
    assert set(stats["languages_bytes_per_token"]) == {
        "English", "German", "French", "Russian", "Chinese",
    }  # fmt: skip
    card = (folder / "tokenizer" / "TOKENIZER_CARD.md").read_text()
    assert f"| English | {stats['languages_bytes_per_token']['English']} |" in card
    assert f"`{theirs.eos_token}` {manifest['eos_id']} ends each document" in card


def check_checkpoint(folder, prepared, stops=()):
    """Hold what a checkpoint says of its tokenizer against the prepared data."""
    from utils.model.checkpoints import load_model

    loaded, manifest = load_model(folder), read_dataset(prepared)
    eos, pad = manifest["eos_id"], manifest["pad_id"]
    config, ours = loaded.model.config, load_tokenizer(loaded.folder)
    assert loaded.card["tokenizer_sha256"] == ours.sha256 == manifest["tokenizer_sha256"]
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (eos, eos, pad)
    assert config.vocab_size == manifest["vocab_size"] and loaded.prefix_id == eos
    generation = loaded.model.generation_config
    wanted = sorted({eos, *stops})
    assert generation.eos_token_id == (wanted if len(wanted) > 1 or stops else eos)
    assert (generation.bos_token_id, generation.pad_token_id) == (eos, pad)
    for document in iter_documents(prepared, "val"):
        assert loaded.encoder.encode(document["text"]) == ours.encode(document["text"])
    rows = loaded.model.get_input_embeddings().weight
    assert rows[eos].abs().sum() > 0  # it is not the row of padding, which stays 0
    return loaded


def check_tuned(folder, prepared, stop):
    """Hold the end of an answer against the ids that end a text."""
    from utils.generation.engine import stop_ids

    tuned = check_checkpoint(folder, prepared, {stop})
    assert stop == tuned.template.stop_id(tuned.encoder)
    assert stop_ids(tuned) == {tuned.prefix_id, stop}
    return tuned


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(EXPECTED))
def test_every_type_goes_through_all_stages(run_script, work, texts, kind):
    from utils.evaluation.baselines import fit_and_score
    from utils.evaluation.heldout import heldout_bits_per_byte

    own = ("--tokenizer_type", kind)
    if kind in FOREIGN:
        own = ("--reuse_tokenizer", "--tokenizer_path", FOREIGN[kind](work, texts))
    options = ("--input_path", "texts", "--vocab_size", 600, "--no_decontaminate")
    run(run_script, "01_prepare_data", *options, *own)
    prepared = work / "data/processed/texts"
    check_prepared(prepared, kind)
    again = run(run_script, "01_prepare_data", *options, *own)
    assert "already prepared" in again.stderr

    run(run_script, "02_pretrain", *SHAPE.split(), "--data_dir", prepared, "--output_dir", "run")
    base = check_checkpoint(next((work / "run").glob("*/final")), prepared)
    assert heldout_bits_per_byte(base, prepared).bits_per_byte > 0
    assert np.isfinite(fit_and_score(prepared).bigram_bpb)

    layout = "instruct" if kind == "gpt2" else "chatml"
    data = ("--model_path", base.folder, "--dataset_path", "chats.json", "--output_dir", "sft")
    run(run_script, "03_sft", *data, "--prompt_template", layout, "--max_steps", 2)
    chat = load_tokenizer(prepared / "tokenizer").control_tokens()[CHAT_TOKENS[1]]
    stop = base.prefix_id if layout == "instruct" else chat
    tuned = check_tuned(work / "sft" / "final", prepared, stop)
    ask = ("--model_path", "sft", "--max_new_tokens", 8, "--cpu")
    answer = run_script("06_serve", *ask, stdin="Hello\n")
    assert answer.returncode == 0, answer.stderr

    reuse = ("--reuse_tokenizer", "--tokenizer_path", tuned.folder, "--dataset_name", "more")
    run(run_script, "01_prepare_data", *options, *reuse)
    wanted = read_dataset(prepared)["tokenizer_sha256"]
    assert read_dataset(work / "data/processed/more")["tokenizer_sha256"] == wanted
