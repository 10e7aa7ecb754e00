"""A stored result is there whole or not at all, and one that was damaged is not used."""

import numpy as np
import pytest

from utils.data.work.cache import ResultCache


@pytest.fixture
def store(tmp_path):
    return ResultCache(tmp_path / "store")


ARRAYS = {
    "numbers": np.arange(12, dtype=np.uint64).reshape(3, 4),
    "bytes": np.frombuffer(b"abc", np.uint8),
    "nothing": np.empty((0, 2), np.uint32),
}


def test_arrays_and_record_come_back(store):
    record = {"count": 3, "text": "caf\u00e9 \ud800", "list": [1, 2]}
    store.put("one", ARRAYS, record)
    assert store.has("one") and store.record("one") == record
    arrays = store.arrays("one")
    assert sorted(arrays.names()) == sorted(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert np.array_equal(arrays[name], array)
    assert arrays.part("numbers", slice(1, 2)).tolist() == [[4, 5, 6, 7]]
    assert arrays.part("bytes", slice(1, 3)).tobytes() == b"bc"
    store.put("one", {"bytes": ARRAYS["bytes"][:1]}, None)
    assert store.arrays("one")["bytes"].tobytes() == b"a"


def test_what_was_never_stored_is_not_there(store):
    assert not store.has("one")


@pytest.mark.parametrize("ending", [".safetensors", ".json"])
@pytest.mark.parametrize("damage", ["gone", "shorter", "flipped"])
def test_a_damaged_result_is_not_there_and_can_be_made_again(store, ending, damage):
    store.put("one", ARRAYS, {"count": 3})
    path = store.folder / f"one{ending}"
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "shorter":
        path.write_bytes(data[:-3])
    else:
        data[data.index(b"3") if ending == ".json" else -1] ^= 1
        path.write_bytes(data)
    assert not store.has("one")
    store.put("one", ARRAYS, {"count": 3})
    assert store.has("one")


def test_sweeping_leaves_the_wanted_results_only(store):
    for name in ("one", "two"):
        store.put(name, ARRAYS, None)
    (store.folder / ".tmp-three.json").write_text("half")
    store.sweep({"two"})
    assert sorted(path.name for path in store.folder.iterdir()) == ["two.json", "two.safetensors"]
