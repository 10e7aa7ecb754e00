"""Rows by best fit against packing one by one, and against what the documents are."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from utils.data.tokens.packing import BestFit, EndToEnd, best_fit
from utils.data.tokens.shards import TokenShards
from utils.data.tokens.token_stream import DocumentOffsets, TokenStream
from utils.tokenizers.control_tokens import ControlIds

EOS, PAD = 2, 3


def packed(lengths, length, kind=BestFit, dtype="<u2"):
    """Documents whose tokens are 10, 11, ... in turn, each with EOS at its end."""
    ends = np.cumsum([0, *lengths])
    tokens = np.arange(10, 10 + ends[-1]).astype(dtype)
    tokens[ends[1:] - 1] = EOS
    offsets = DocumentOffsets([ends.astype("<u8")])
    control = (ControlIds(EOS, PAD),) if kind is BestFit else ()
    return tokens, kind(TokenStream([tokens]), offsets, length, *control)


def test_three_rows_worked_out_by_hand():
    _, source = packed([3, 2, 7, 4, 1], 6)  # room 5: 7 = 5 + 2; then 4 + 1 and 3 + 2, and 2 alone
    assert source.rows(np.arange(source.num_rows)).tolist() == [
        [EOS, 15, 16, 17, 18, 19],
        [EOS, 22, 23, 24, EOS, EOS],
        [EOS, 10, 11, EOS, 13, EOS],
        [EOS, 20, EOS, PAD, PAD, PAD],
    ]
    assert source.accounts() == {"rows": 4, "tokens": 21, "padding": 3, "cuts": 1, "left_out": 0}
    assert source.tokens(np.array([3, 0])).tolist() == [3, 6]
    assert source.most_documents == 3


def one_by_one(lengths, room):
    """First-fit decreasing, the plain way: a row takes the longest that fits, again and again."""
    left, rows = sorted(lengths, reverse=True), []
    while left:
        free, row = room, []
        while (fitting := next((n for n in left if n <= free), None)) is not None:
            left.remove(fitting)
            row.append(fitting)
            free -= fitting
        rows.append(row)
    return rows


@pytest.mark.parametrize("seed", range(8))
def test_kinds_are_the_rows_of_packing_one_by_one(seed):
    chance = np.random.default_rng(seed)
    room = int(chance.integers(1, 60))
    lengths = np.minimum(room, chance.geometric(0.1, int(chance.integers(0, 300))))
    kinds = best_fit(np.bincount(lengths, minlength=room + 1), room)
    rows = [
        [length for length, number in kind for _ in range(number)]
        for kind, times in kinds
        for _ in range(times)
    ]
    assert rows == one_by_one(lengths.tolist(), room)


@pytest.mark.parametrize("kind", [BestFit, EndToEnd])
@pytest.mark.parametrize("length", [2, 17, 64])
def test_each_token_is_in_one_row_but_for_what_is_left_out(kind, length):
    lengths = np.random.default_rng(1).geometric(0.05, 500)
    tokens, source = packed(lengths, length, kind, "<u4")
    numbers = np.arange(source.num_rows)
    runs, rows = source.runs(numbers), source.rows(numbers)
    parts = list(
        zip(*map(np.ndarray.tolist, (runs.starts, runs.places, runs.lengths)), strict=True)
    )
    seen = [place for start, _, size in parts for place in range(start, start + size)]
    left_out = source.accounts()["left_out"]
    assert sorted(seen) == list(range(len(tokens) - left_out))
    assert left_out < length and (kind is EndToEnd or left_out == 0)
    assert int((rows != PAD).sum()) == source.num_tokens == int(source.tokens(numbers).sum())
    flat = rows.flatten()
    for start, place, size in parts:
        assert flat[place : place + size].tolist() == tokens[start : start + size].tolist()
    begins = rows == EOS
    begins[:, 0] = True
    assert begins.sum(1).max() <= source.most_documents <= 1 + begins.sum(1).max()


def test_rows_hold_whole_documents_of_real_text(prepared_dir):
    shards = TokenShards.open(prepared_dir, "train")
    source = BestFit(shards.tokens, shards.document_offsets, 256, ControlIds())
    ends = shards.document_offsets[:].tolist()
    pieces = Counter()
    for begin, end in pairwise(ends):
        for start in range(begin, end, 255):
            pieces[tuple(shards.tokens[start : min(end, start + 255)].tolist())] += 1
    found = Counter()
    for row in source.rows(np.arange(source.num_rows)).tolist():
        assert row[0] == EOS
        text = row[1:]
        while text and text[0] != PAD:
            size = text.index(EOS) + 1 if EOS in text else len(text)
            found[tuple(text[:size])] += 1
            text = text[size:]
        assert set(text) <= {PAD}
    assert found == pieces


def test_padding_is_rare_where_documents_are_many():
    lengths = np.minimum(4000, np.random.default_rng(0).lognormal(5.5, 1.2, 20_000)).astype(int) + 2
    _, source = packed(lengths, 1024, dtype="<u4")
    accounts = source.accounts()
    assert accounts["padding"] / (accounts["rows"] * 1024) < 0.002
