import gzip
import json

import pyarrow.parquet
import pytest
import zstandard

from utils.chat.layouts import Preference
from utils.chat.rows import (
    build_dpo_rows,
    build_sft_rows,
    read_conversations,
    read_preferences,
)
from utils.chat.templates import TEMPLATES
from utils.errors import DataError
from utils.finetuning.splits import batch_order, hold_out

CHATML = TEMPLATES["chatml"]


class Letters:
    """One id a letter, so that masks can be written down; control tokens are 1000 and up."""

    def encode(self, text):
        return [ord(letter) for letter in text]

    def control_id(self, token):
        return {"<|im_start|>": 1000, "<|im_end|>": 1001, "</s>": 2}[token]


def ids(text):
    return Letters().encode(text)


def chat(question, answer):
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]


def test_the_loss_is_on_the_answer_and_its_stop_token_only():
    rows = build_sft_rows([chat("Q", "yes")], CHATML, Letters(), 100)
    prompt = [1000, *ids("user\nQ"), 1001, *ids("\n"), 1000, *ids("assistant\n")]
    assert rows.input_ids == [[*prompt, *ids("yes"), 1001]]
    assert rows.labels == [[-100] * len(prompt) + [*ids("yes"), 1001]]


def test_both_answers_of_a_longer_conversation_are_learned():
    messages = [*chat("Q", "a"), *chat("R", "b")]
    (labels,) = build_sft_rows([messages], CHATML, Letters(), 100).labels
    assert [label for label in labels if label != -100] == [ord("a"), 1001, ord("b"), 1001]


def test_instruct_rows_end_with_the_end_of_text():
    rows = build_sft_rows([chat("Q", "yes")], TEMPLATES["instruct"], Letters(), 100)
    assert rows.labels[0][-4:] == [*ids("yes"), 2]
    assert rows.labels[0][-5] == -100


def test_too_long_and_held_out_rows_are_dropped_and_counted():
    heldout = build_sft_rows([chat("H", "yes")], CHATML, Letters(), 100)
    conversations = [chat("H", "yes"), chat("Q", "x" * 200), chat("Q", "no")]
    rows = build_sft_rows(conversations, CHATML, Letters(), 100, exclude=heldout)
    assert rows.dropped == {"too_long": 1, "in_heldout": 1}
    assert [messages[1]["content"] for messages in rows.conversations] == ["no"]


def test_prompt_and_answer_of_a_preference_are_the_row_that_sft_learns():
    prompt = [{"role": "user", "content": "Q"}]
    rows = build_dpo_rows([Preference(prompt, "yes", "no")], CHATML, Letters(), 100)
    (learned,) = build_sft_rows([chat("Q", "yes")], CHATML, Letters(), 100).input_ids
    assert rows.prompt_ids[0] + rows.chosen_ids[0] == learned
    assert rows.rejected_ids == [[*ids("no"), 1001]]
    assert (rows.lengths, rows.tokens(0)) == ([len(learned)], 2 * len(learned) - 1)


def test_dropped_preferences_are_counted():
    prompt = [{"role": "user", "content": "Q"}]
    pairs = [Preference(prompt, "a", "a"), Preference(prompt, "a", "b" * 99)]
    rows = build_dpo_rows(pairs, CHATML, Letters(), 60)
    assert (len(rows), rows.dropped) == (0, {"same_answers": 1, "too_long": 1})


def test_bad_lines_are_named_and_the_rest_is_kept(tmp_path):
    path = tmp_path / "rows.jsonl"
    good = json.dumps({"prompt": "Hi", "response": "Hello."}).encode()
    path.write_bytes(b"\n".join([good, b"{broken", b"", b'{"prompt": "\xff"}', b"{}", good]))
    rows, bad = read_conversations(path)
    assert len(rows) == 2
    assert [row.place for row in bad] == [f"{path}:2", f"{path}:4", f"{path}:5"]
    assert [row.reason.split(" (")[0] for row in bad] == [
        "not valid JSON",
        "not UTF-8",
        "unknown layout",
    ]


def test_a_packed_json_array_is_read_and_its_bad_rows_are_numbered(tmp_path):
    path = tmp_path / "rows.json.gz"
    rows = [{"prompt": "Hi", "chosen": "A", "rejected": "B"}, {"prompt": "Hi"}]
    path.write_bytes(gzip.compress(json.dumps(rows).encode()))
    found, bad = read_preferences(path)
    assert (len(found), bad[0].place, bad[0].reason) == (1, f"{path}:2", "chosen is missing")


@pytest.mark.parametrize("ending", ["json", "jsonl.zst", "csv", "csv.gz", "parquet"])
def test_conversations_are_read_from_every_format(tmp_path, ending):
    path = tmp_path / f"rows.{ending}"
    rows = [{"instruction": "Add them.", "input": "1, 2", "output": "3"}] * 2
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    table = b"instruction,input,output\n" + b'Add them.,"1, 2",3\n' * 2
    content = {
        "json": json.dumps(rows).encode(),
        "jsonl.zst": zstandard.compress(lines),
        "csv": table,
        "csv.gz": gzip.compress(table),
    }
    if ending == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_bytes(content[ending])
    conversations, bad = read_conversations(path)
    assert conversations == [chat("Add them.\n\n1, 2", "3")] * 2
    assert bad == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not found: run `make create-sample-datasets`"),
        (b"[{", "rows.json:1: not valid JSON"),
        (b"{}", "holds no usable row (1 bad, such as"),
        (b"", "holds no usable row (0 bad)"),
    ],
)
def test_a_file_without_rows_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "rows.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_conversations(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_twentieth_is_held_out_and_no_row_is_lost():
    train, held = hold_out(list(range(200)), seed=1)
    assert (len(train), len(held)) == (190, 10)
    assert sorted(train + held) == list(range(200))
    assert hold_out(list(range(200)), seed=1) == (train, held)
    with pytest.raises(DataError):
        hold_out([1], seed=1)


def test_each_pass_has_every_row_once_and_batches_of_like_length():
    lengths = [(number * 37) % 101 for number in range(64)]
    order = batch_order(lengths, batch_rows=4, rows=128, seed=3)
    assert sorted(order[:64]) == sorted(order[64:]) == list(range(64))
    assert order[:64] != order[64:]
    batches = [[lengths[n] for n in order[at : at + 4]] for at in range(0, 64, 4)]
    assert max(max(batch) - min(batch) for batch in batches) <= 8
    assert batch_order(lengths, 4, 128, 3) == order
