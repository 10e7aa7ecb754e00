import shutil

import pytest

from utils.chat.heldout_files import (
    CONVERSATIONS,
    PREFERENCES,
    carry_heldout,
    find_heldout,
    heldout_beside,
    write_heldout,
)
from utils.chat.rows import read_conversations
from utils.errors import DataError

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Gr\u00fc\u00dfe"}]


@pytest.fixture
def sft(tmp_path):
    """A run folder with one held-out conversation, and lumi.json of its model."""
    run = tmp_path / "sft"
    (run / "final").mkdir(parents=True)
    entry = write_heldout(run, CONVERSATIONS, [{"messages": CHAT}], "data/mine.jsonl")
    return run, {"heldout": {CONVERSATIONS: entry}}


@pytest.mark.parametrize("ending", ["json", "jsonl", "jsonl.gz", "csv.zst"])
def test_the_heldout_file_lies_beside_the_training_set(tmp_path, ending):
    dataset = tmp_path / f"chats.{ending}"
    assert heldout_beside(dataset) is None
    beside = tmp_path / f"chats_heldout.{ending}"
    beside.touch()
    assert heldout_beside(dataset) == beside


def test_a_model_finds_its_rows_where_the_run_has_been_moved_to(sft, tmp_path):
    run, card = sft
    shutil.move(run, tmp_path / "elsewhere")
    path, entry = find_heldout(CONVERSATIONS, tmp_path / "elsewhere" / "final", card)
    assert read_conversations(path) == ([CHAT], [])
    assert (entry["rows"], entry["run"], entry["source"]) == (1, "sft", "data/mine.jsonl")


def test_a_later_run_carries_the_rows_along(sft, tmp_path):
    run, card = sft
    entry = carry_heldout(CONVERSATIONS, run / "final", card, tmp_path / "dpo")
    shutil.rmtree(run)
    path, found = find_heldout(
        CONVERSATIONS, tmp_path / "dpo" / "final", {"heldout": {CONVERSATIONS: entry}}
    )
    assert path == tmp_path / "dpo" / "heldout_conversations.jsonl"
    assert (found["run"], read_conversations(path)[0]) == ("sft", [CHAT])
    assert carry_heldout(PREFERENCES, run / "final", card, tmp_path / "dpo") is None


def test_rows_that_changed_or_are_missing_are_not_measured(sft, tmp_path, caplog):
    run, card = sft
    with pytest.raises(DataError, match="does not say which rows were held out as preferences"):
        find_heldout(PREFERENCES, run / "final", card)
    (run / "heldout_conversations.jsonl").write_text("{}")
    with pytest.raises(DataError, match="has changed since sft held it out"):
        find_heldout(CONVERSATIONS, run / "final", card)
    assert carry_heldout(CONVERSATIONS, run / "final", card, tmp_path / "dpo") is None
    assert "held-out conversations not carried along" in caplog.text
    (run / "heldout_conversations.jsonl").unlink()
    with pytest.raises(DataError, match="is missing: put it back beside final/"):
        find_heldout(CONVERSATIONS, run / "final", card)
