"""Packed ids are a standard LZ4 file, found again block by block, and damage has a name."""

import io
import re
import tempfile
from pathlib import Path

import lz4.frame
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.data.tokens.lz4_tokens import BLOCK_BYTES, CACHED_BLOCKS, Lz4Tokens, Lz4Writer, _unpacked
from utils.errors import DataError

U2, U4 = np.dtype("<u2"), np.dtype("<u4")
BLOCK = BLOCK_BYTES // 2


def _ids(number, dtype=U2, seed=1):
    """Ids of which half are noise, so that some blocks shrink and others do not."""
    chance = np.random.default_rng(seed)
    ids = chance.integers(0, 60000, number).astype(dtype)
    ids[: number // 2] %= 7
    return ids


def _write(path, ids, pieces=1):
    writer = Lz4Writer(path.open("wb"))
    for part in np.array_split(ids, pieces):
        writer.write(part.tobytes())
    writer.close()
    return path


@pytest.mark.parametrize("number", [1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 77])
@pytest.mark.parametrize("dtype", [U2, U4])
def test_the_file_is_what_lz4_unpacks(tmp_path, number, dtype):
    ids = _ids(number, dtype)
    path = _write(tmp_path / "a.lz4", ids)
    with lz4.frame.open(path) as file:
        assert file.read() == ids.tobytes()
    assert Lz4Tokens(path, dtype, number)[:number].tolist() == ids.tolist()


def test_noise_is_stored_and_repetition_shrinks(tmp_path):
    noise = np.random.default_rng(2).integers(0, 1 << 16, 4 * BLOCK).astype(U2)
    sizes = [_write(tmp_path / "a", ids).stat().st_size for ids in (noise, noise % 2)]
    assert noise.nbytes < sizes[0] < noise.nbytes + 128
    assert sizes[1] < noise.nbytes / 4


def test_the_bytes_do_not_depend_on_the_size_of_writes(tmp_path):
    ids = _ids(3 * BLOCK + 5)
    files = [_write(tmp_path / str(n), ids, pieces=n).read_bytes() for n in (1, 2, 3, 1000)]
    assert len(set(files)) == 1


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    ids = _ids(7 * BLOCK + 123)
    path = _write(tmp_path_factory.mktemp("lz4") / "shard.lz4", ids)
    return ids, Lz4Tokens(path, U2, len(ids))


near_a_border = st.builds(
    lambda block, offset: max(0, block * BLOCK + offset), st.integers(0, 8), st.integers(-3, 3)
)


@given(start=near_a_border | st.integers(0, 8 * BLOCK), length=st.integers(0, 3 * BLOCK))
@settings(max_examples=200, deadline=None)
def test_any_slice_is_that_of_the_array(tokens, start, length):
    ids, packed = tokens
    found = packed[start : start + length]
    assert found.dtype == U2
    np.testing.assert_array_equal(found, ids[start : start + length])


def test_a_slice_unpacks_its_own_blocks_once(tokens):
    _, packed = tokens
    _unpacked.cache_clear()
    for start in (10, BLOCK - 2, 5 * BLOCK + 3, 12):
        packed[start : start + 4]
    assert _unpacked.cache_info().misses == 3  # blocks 0, 1 and 5
    assert _unpacked.cache_info().maxsize == CACHED_BLOCKS


@given(place=st.integers(0, 1 << 30), bit=st.integers(0, 7))
@settings(max_examples=100, deadline=None)
def test_a_flipped_bit_is_found_wherever_it_is(tokens, place, bit):
    ids, packed = tokens
    data = bytearray(packed.path.read_bytes())
    unread = len(data) - 8 * 10 - 16  # end mark and checksum of all: for other programs
    place = place % (len(data) - 8)
    data[place + 8 * (place >= unread)] ^= 1 << bit
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bad.lz4"
        path.write_bytes(data)
        with pytest.raises(DataError, match=rf"{re.escape(str(path))}.*: prepare the data again"):
            Lz4Tokens(path, U2, len(ids))[:]


def test_a_damaged_block_has_a_name_and_the_others_can_be_read(tmp_path):
    ids = _ids(4 * BLOCK)
    path = _write(tmp_path / "train_00003.lz4", ids)
    data = bytearray(path.read_bytes())
    data[100] ^= 4
    path.write_bytes(data)
    packed = Lz4Tokens(path, U2, len(ids))
    assert packed[BLOCK : 3 * BLOCK].tolist() == ids[BLOCK : 3 * BLOCK].tolist()
    with pytest.raises(DataError, match=r"train_00003.lz4: block 0 is damaged \(a changed"):
        packed[0:1]


@pytest.mark.parametrize("wrong", [b"", b"\x00" * 5000, b"not LZ4 at all"])
def test_another_file_is_refused(tmp_path, wrong):
    path = tmp_path / "other.lz4"
    path.write_bytes(wrong or _write(tmp_path / "a", _ids(3 * BLOCK)).read_bytes()[:-8])
    with pytest.raises(DataError, match=f"other.lz4 is no LZ4 file of {3 * BLOCK} tokens"):
        Lz4Tokens(path, U2, 3 * BLOCK)


def test_the_file_is_closed_even_where_the_end_cannot_be_written():
    class Full(io.BytesIO):
        def write(self, data):
            if self.tell():
                raise OSError(28, "No space left on device")
            return super().write(data)

    file = Full()
    writer = Lz4Writer(file)
    writer.write(b"ab")
    with pytest.raises(OSError, match="No space"):
        writer.close()
    assert file.closed
