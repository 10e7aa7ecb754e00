"""Accounts of what a run draws from each folder."""

import logging
from pathlib import Path

import pytest

from utils.data.tokens.rows import PackedDataset
from utils.training.records.data_usage import (
    account_sources,
    announce_passes,
    describe_sources,
    source_metrics,
)

NAMES = (Path("data/many"), Path("data/few"))


@pytest.fixture
def data(prepared_dir):
    return PackedDataset.open([prepared_dir, prepared_dir], "train", 64, [9, 1], "best_fit")


def test_a_folder_that_is_seen_again_is_announced(data, caplog):
    caplog.set_level(logging.INFO)
    rows = data.sources[0].num_rows * 2
    announce_passes(data, NAMES, 7, rows)
    assert "many: its rows are seen 1.8 times" in caplog.text and "few" not in caplog.text


def test_the_log_says_what_packing_did(data, caplog):
    caplog.set_level(logging.INFO)
    describe_sources(data, NAMES)
    accounts = data.sources[0].accounts()
    assert f"data/few: {accounts['rows']:,} rows" in caplog.text
    assert f"{accounts['padding']:,} padding" in caplog.text


def test_run_json_and_metrics_tell_the_same_tokens(data):
    many, few = account_sources(data, NAMES, 7, [(0, 500)])
    assert (many["rows"], few["rows"]) == (450, 50) or many["rows"] + few["rows"] == 500
    assert many["tokens"] + few["tokens"] == data.count_tokens(7, 0, 500)
    assert source_metrics(data, NAMES, 7, [(0, 500)]) == {
        "tokens_0_many": many["tokens"],
        "tokens_1_few": few["tokens"],
    }
    assert source_metrics(data, NAMES[:1], 7, [(0, 500)]) == {}


def test_skipped_windows_are_not_counted(data):
    windows = [(0, 96), (104, 300)]
    parts = account_sources(data, NAMES, 7, windows)
    assert sum(part["rows"] for part in parts) == 96 + 196
    wanted = sum(data.count_tokens(7, first, end - first) for first, end in windows)
    assert sum(part["tokens"] for part in parts) == wanted
