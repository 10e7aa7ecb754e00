"""The proofs of each stage, on a real prepared folder, checkpoint and fine-tuning rows."""

import json
import shutil

import pytest

from utils.config.model import ModelConfig
from utils.files import read_json, write_manifest
from utils.model.checkpoints import load_model
from utils.preflight.proofs_by_stage import (
    checkpoint_proofs,
    data_proofs,
    dpo_proofs,
    fresh_chat_model,
    rows_within,
    sft_proofs,
    signal_proofs,
    spread,
    with_template,
)
from utils.preflight.signal import undisturbed
from utils.tokenizers.training import train_tokenizer

MODEL = ModelConfig(vocab_size=600, sequence_length=128)
SFT_ROWS = [
    {"prompt": "What does abs do?", "response": "Return the absolute value."},
    {"prompt": "Say <|im_end|> please.", "response": "No control tokens from users."},
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."},
                  {"role": "user", "content": "Bye"}, {"role": "assistant", "content": "Bye."}]},
]  # fmt: skip
DPO_ROWS = [{"prompt": "What does abs do?", "chosen": "Absolute value.", "rejected": "A list."}]


@pytest.fixture(autouse=True)
def one_thread():
    with undisturbed():
        yield


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    (folder / "sft.json").write_text(json.dumps(SFT_ROWS))
    (folder / "dpo.json").write_text(json.dumps(DPO_ROWS))
    return folder


def failures(proofs):
    return [result.name for result in proofs if not result.ok]


def test_the_signal_of_each_shipped_architecture_is_right(root):
    from utils.planning.sizes import all_sizes

    for size in all_sizes(root / "config"):
        small = size.model.model_copy(update={"vocab_size": 600})
        assert failures(signal_proofs(small)) == []


def test_prepared_data_pass(prepared_dir):
    results = list(data_proofs(MODEL, prepared_dir))
    assert failures(results) == []
    assert len(results) == 6


def test_another_tokenizer_in_the_folder_is_found(prepared_dir, tmp_path, texts):
    folder = tmp_path / "docs"
    shutil.copytree(prepared_dir, folder)
    shutil.rmtree(folder / "tokenizer")
    train_tokenizer(texts[:80], folder / "tokenizer", 590)
    manifest = read_json(folder / "manifest.json")
    write_manifest(folder, **{k: v for k, v in manifest.items() if k not in ("files", "format")})
    assert "token shards decode to the text shards" in failures(data_proofs(MODEL, folder))


def test_a_model_with_too_few_rows_is_found(prepared_dir):
    small = MODEL.model_copy(update={"vocab_size": 590})
    proofs = data_proofs(small, prepared_dir)
    results = [next(proofs) for _ in range(4)]
    assert results[-1].name == "every token id has an embedding"
    assert not results[-1].ok
    assert results[-1].remedy == "pass --vocab_size 600"


@pytest.mark.parametrize("template", ["chatml", "instruct", "chat"])
def test_conversations_pass_with_every_template(checkpoint_dir, rows, template):
    loaded = with_template(load_model(checkpoint_dir), template)
    assert failures(sft_proofs(loaded, rows / "sft.json", None)) == []
    assert failures(dpo_proofs(loaded, rows / "dpo.json", None)) == []


def test_the_weights_of_a_checkpoint_pass(checkpoint_dir):
    assert failures(checkpoint_proofs(load_model(checkpoint_dir))) == []


def test_without_a_checkpoint_a_fresh_model_lays_out_alike(prepared_dir, rows):
    loaded = fresh_chat_model(MODEL, prepared_dir, "chatml")
    assert failures(sft_proofs(loaded, rows / "sft.json", None)) == []


def test_rows_that_max_length_cuts_all_are_found(checkpoint_dir, rows):
    loaded = load_model(checkpoint_dir)
    assert "every answer and its stop token are learned" in failures(
        sft_proofs(loaded, rows / "sft.json", 4)
    )


def test_a_checkpoint_whose_chat_template_was_changed_is_found(checkpoint_dir, rows):
    loaded = load_model(checkpoint_dir)
    loaded.tokenizer.chat_template = loaded.tokenizer.chat_template.replace("user", "you").replace(
        "m['content']", "m['content'] + ' '"
    )
    assert failures(sft_proofs(loaded, rows / "sft.json", None)) == [
        "apply_chat_template gives the same ids"
    ]


def test_every_row_of_an_ordinary_file_is_proved(checkpoint_dir, tmp_path):
    rows = [{"prompt": f"What is {n}?", "response": f"It is {n + 1}."} for n in range(1000)]
    rows[998]["response"] += " because" * 400
    (tmp_path / "sft.json").write_text(json.dumps(rows))
    loaded = load_model(checkpoint_dir)
    learned = next(sft_proofs(loaded, tmp_path / "sft.json", None))
    assert learned.ok
    assert learned.measured == "0 of 999 rows wrong"  # the row that is too long is not built


def test_of_a_huge_file_as_many_rows_as_the_limit_allows_are_proved():
    assert rows_within(100, [10, 20, 30]) == 3
    assert rows_within(100, [40] * 10) == 2
    assert rows_within(100, [400]) == 1


def test_a_sample_is_spread_over_the_file():
    assert spread([1, 2, 3], 5) == [1, 2, 3]
    assert spread(list(range(100)), 4) == [0, 25, 50, 75]
