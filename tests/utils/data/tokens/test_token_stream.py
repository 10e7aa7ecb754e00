"""Several shards, packed or not, read like one array; opening them reads none of it."""

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.data.tokens.lz4_tokens import BLOCK_BYTES, Lz4Tokens, Lz4Writer
from utils.data.tokens.shards import TokenShards
from utils.data.tokens.token_stream import DocumentOffsets, TokenStream

BLOCK = BLOCK_BYTES // 2
SIZES = (2 * BLOCK + 5, 1, BLOCK, 700)
WHOLE = np.random.default_rng(5).integers(0, 40, sum(SIZES)).astype("<u2")


@pytest.fixture(scope="module")
def streams(tmp_path_factory):
    """The same ids in arrays, in LZ4 files, and in both."""
    folder = tmp_path_factory.mktemp("stream")
    arrays = np.split(WHOLE, np.cumsum(SIZES)[:-1])
    packed = []
    for number, ids in enumerate(arrays):
        writer = Lz4Writer((folder / f"{number}.lz4").open("wb"))
        writer.write(ids.tobytes())
        writer.close()
        packed.append(Lz4Tokens(folder / f"{number}.lz4", ids.dtype, len(ids)))
    mixed = [packed[0], arrays[1], packed[2], arrays[3]]
    return [TokenStream(shards) for shards in (arrays, packed, mixed)]


def test_a_stream_of_shards_reads_like_one_array():
    whole = np.arange(100, dtype=np.uint16)
    stream = TokenStream([whole[:10], whole[10:11], whole[11:60], whole[60:]])
    assert len(stream) == 100
    for start in range(0, 101, 3):
        for stop in (0, 5, 10, 11, 12, 60, 99, 100, 200):
            assert stream[start:stop].tolist() == whole[start:stop].tolist()
    assert [stream[0], stream[10], stream[-1]] == [0, 10, 99]
    assert np.asarray(stream).tolist() == whole.tolist()
    assert stream[-5:].tolist() == [95, 96, 97, 98, 99]
    with pytest.raises(ValueError, match="only steps of 1"):
        stream[::2]


BORDERS = np.unique([*np.cumsum([0, *SIZES]), BLOCK, 2 * BLOCK]).tolist()
places = st.integers(0, len(WHOLE)) | st.builds(
    lambda border, offset: min(max(0, border + offset), len(WHOLE)),
    st.sampled_from(BORDERS),
    st.integers(-3, 3),
)


@given(start=places, stop=places)
@settings(max_examples=200, deadline=None)
def test_any_slice_of_any_kind_of_shards_is_that_of_the_array(streams, start, stop):
    for stream in streams:
        found = stream[start:stop]
        assert found.dtype == WHOLE.dtype
        np.testing.assert_array_equal(found, WHOLE[start:stop])


@given(starts=st.lists(places, max_size=12), length=st.integers(1, 900) | st.just(BLOCK + 9))
@settings(max_examples=200, deadline=None)
def test_rows_are_the_slices_at_their_starts(streams, starts, length):
    kept = np.array([min(start, len(WHOLE) - length) for start in starts], dtype=np.int64)
    wanted = [WHOLE[start : start + length] for start in kept]
    for stream in streams:
        rows = stream.rows(kept, length)
        assert rows.shape == (len(starts), length) and rows.dtype == WHOLE.dtype
        assert rows.tolist() == [row.tolist() for row in wanted]


lengths_of_shards = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), max_size=4)


@given(lengths_of_shards)
@settings(max_examples=200, deadline=None)
def test_offsets_are_the_running_sum_of_the_lengths(lengths):
    shards = [np.cumsum([0, *own]).astype("<u8") for own in lengths]
    whole = np.cumsum([0, *(length for own in lengths for length in own)])
    offsets = DocumentOffsets(shards)
    assert len(offsets) == len(whole)
    assert [offsets[number] for number in range(len(whole))] == whole.tolist()
    assert offsets[-1] == whole[-1] and np.asarray(offsets).tolist() == whole.tolist()
    for start in range(len(whole) + 1):
        for stop in range(len(whole) + 2):
            found = offsets[start:stop]
            assert found.dtype == np.int64 and found.tolist() == whole[start:stop].tolist()
    for tokens in range(int(whole[-1]) + 2):
        assert offsets.within(tokens) == sum(whole[1:] <= tokens)
    with pytest.raises(IndexError):
        offsets[len(whole)]


def test_a_hundred_million_documents_are_opened_without_reading_them(tmp_path):
    """The files are holes but for their ends: what would load them needs 2.4 GB of memory."""
    documents, tokens = 100_000_000, 1_000_000_000
    (tmp_path / "tokens").mkdir()
    sizes = {"tokens/train_00000.bin": 2 * tokens, "tokens/train_00000.idx": 8 * (documents + 1)}
    for name, size in sizes.items():
        with (tmp_path / name).open("wb") as file:
            file.seek(size - 8)
            file.write(np.array([tokens], "<u8").tobytes())
    files = {name: {"bytes": size, "sha256": ""} for name, size in sizes.items()}
    split = {"token_shards": ["tokens/train_00000.bin"], "text_shards": [], "text_bytes": 1}
    manifest = {"kind": "dataset", "format": 1, "token_dtype": "uint16", "files": files}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"splits": {"train": split}}))
    tracemalloc.start()
    try:
        shards = TokenShards.open(tmp_path, "train")
        found = [shards.num_documents, shards.num_tokens, shards.document_offsets[documents - 3]]
        row = shards.tokens.rows(np.array([tokens - 8]), 8)
        inside = shards.document_offsets.within(tokens - 1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == [documents, tokens, 0] and inside == documents - 1
    assert row.tobytes()[-8:] == np.array([tokens], "<u8").tobytes()
    assert peak < 1_000_000
