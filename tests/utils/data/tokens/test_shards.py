"""What is written is read again: ids, offsets, texts, over several shards."""

import json
from itertools import chain

import numpy as np
import pytest

from utils.data.tokens.shards import (
    Encoded,
    SplitWriter,
    TokenShards,
    iter_documents,
    newest_dataset,
    read_dataset,
    token_dtype,
)
from utils.errors import DataError
from utils.files import write_manifest
from utils.tokenizers.control_tokens import EOS_ID
from utils.tokenizers.load import load_tokenizer


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, tokenizer_dir, texts):
    """Forty documents in shards of at least 500 tokens."""
    folder = tmp_path_factory.mktemp("processed") / "set"
    tokenizer = load_tokenizer(tokenizer_dir)
    (folder / "tokens").mkdir(parents=True)
    splits = {}
    for split, chosen in (("train", range(35)), ("val", range(35, 40))):
        with SplitWriter(folder, split, 500) as writer:
            for start in chosen[::7]:
                numbers = chosen[start - chosen[0] :][:7]
                rows = [[*tokenizer.encode(texts[number]), EOS_ID] for number in numbers]
                lines = [{"id": str(n), "text": texts[n], "source": "s"} for n in numbers]
                writer.write(
                    Encoded(
                        [json.dumps(line).encode() + b"\n" for line in lines],
                        np.array(list(chain.from_iterable(rows)), "<u2"),
                        np.array(list(map(len, rows))),
                        np.array([len(texts[number].encode()) for number in numbers]),
                    )
                )
        splits[split] = writer.summary
    write_manifest(folder, kind="dataset", token_dtype="uint16", splits=splits)
    return folder


def test_ids_decode_to_the_documents_each_closed_by_its_end(dataset, tokenizer_dir, texts):
    tokenizer = load_tokenizer(tokenizer_dir)
    shards = TokenShards.open(dataset, "train")
    assert shards.num_documents == 35
    for number in range(35):
        start, end = shards.document_offsets[number : number + 2]
        ids = shards.tokens[int(start) : int(end)]
        assert ids[-1] == EOS_ID
        assert tokenizer.decode(ids[:-1].tolist()) == texts[number]
    assert shards.document_offsets[-1] == shards.num_tokens
    assert shards.text_bytes == sum(len(text.encode()) for text in texts[:35])


def test_a_shard_ends_with_the_document_that_fills_it(dataset):
    entry = read_dataset(dataset)["splits"]["train"]
    assert len(entry["token_shards"]) > 3
    for name in entry["token_shards"][:-1]:
        offsets = np.fromfile((dataset / name).with_suffix(".idx"), "<u8")
        assert offsets[0] == 0
        assert offsets[-2] < 500 <= offsets[-1]
        assert (dataset / name).stat().st_size == 2 * offsets[-1]


def test_text_shards_hold_the_documents_in_the_order_of_the_tokens(dataset, texts):
    assert [row["text"] for row in iter_documents(dataset, "train")] == texts[:35]
    assert [row["id"] for row in iter_documents(dataset, "val")] == ["35", "36", "37", "38", "39"]


def test_ids_take_two_bytes_up_to_65536_pieces():
    assert [token_dtype(size) for size in (300, 65536, 65537)] == ["uint16", "uint16", "uint32"]


def test_a_folder_that_is_no_data_set_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(DataError, match="make prepare"):
        read_dataset(tmp_path)
    with pytest.raises(DataError, match="make prepare"):
        newest_dataset(tmp_path)
    write_manifest(tmp_path, kind="checkpoint")
    with pytest.raises(DataError, match="not a prepared data set"):
        read_dataset(tmp_path)


def test_a_cut_shard_and_an_unknown_split_are_named(tmp_path, prepared_dir):
    with pytest.raises(DataError, match="no split 'test': use one of train, val"):
        TokenShards.open(prepared_dir, "test")
    for path in prepared_dir.rglob("*"):
        if path.is_file():
            target = tmp_path / "copy" / path.relative_to(prepared_dir)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    shard = tmp_path / "copy" / "tokens" / "val_00000.bin"
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(DataError, match=r"val_00000.bin: \d+ bytes instead of"):
        TokenShards.open(tmp_path / "copy", "train")


def test_the_newest_data_set_is_found(prepared_dir):
    assert newest_dataset(prepared_dir.parent) == prepared_dir
