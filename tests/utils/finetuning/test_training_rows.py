import json

import pytest

from utils.chat.templates import CHATML
from utils.config.sft import SFTConfig
from utils.errors import DataError
from utils.finetuning.training_rows import CHATS, read_rows
from utils.model.checkpoints import load_model

ALPACA = [{"instruction": f"Say {n}.", "output": str(n)} for n in range(8)]


@pytest.fixture(scope="module")
def base(checkpoint_dir):
    return load_model(checkpoint_dir, device="cpu")


@pytest.fixture
def settings(tmp_path):
    dataset = tmp_path / "mine.jsonl"
    dataset.write_text("".join(json.dumps(row) + "\n" for row in ALPACA))
    return {"dataset_path": dataset, "decontaminate": False}


def test_without_a_heldout_file_some_rows_are_set_aside(settings, base):
    rows = read_rows(CHATS, SFTConfig.build(settings), base, CHATML)
    assert rows.counts == {"rows": 8, "kept": 7, "held_out": 1, "bad": 0, "dropped": {}}
    assert rows.heldout_source == settings["dataset_path"]
    (held,) = rows.heldout.as_json()
    assert held["messages"] not in rows.train.conversations


def test_a_heldout_file_beside_the_data_set_is_used_and_its_rows_are_not_learned(settings, base):
    beside = settings["dataset_path"].with_name("mine_heldout.jsonl")
    beside.write_text(json.dumps(ALPACA[0]) + "\n{broken\n")
    rows = read_rows(CHATS, SFTConfig.build(settings), base, CHATML)
    assert rows.counts == {
        "rows": 9, "kept": 7, "held_out": 0, "bad": 1, "dropped": {"in_heldout": 1},
    }  # fmt: skip
    assert (rows.heldout_source, len(rows.heldout)) == (beside, 1)


def test_a_heldout_file_that_is_missing_is_named(settings, base, tmp_path):
    cfg = SFTConfig.build({**settings, "heldout_path": tmp_path / "nothing.json"})
    with pytest.raises(DataError, match=r"nothing\.json not found"):
        read_rows(CHATS, cfg, base, CHATML)
