"""Stage 01 as a whole: the same bytes every time, every document accounted for, nothing lost."""

import contextlib
import errno
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from pathlib import Path

import lz4.frame
import numpy as np
import pytest
import torch
import xxhash

from tests.stage01 import prepare
from tests.utils.data.books import book_files, write_book
from utils.config.prepare import PrepareConfig
from utils.data.corpus.decontamination import ItemSet
from utils.data.tokens.rows import PackedDataset
from utils.data.tokens.shards import TokenShards, iter_documents, read_dataset
from utils.data.work import workers
from utils.data.work.cache import ResultCache
from utils.errors import ConfigError, DataError, Interrupted, LumiError
from utils.files import folder_damage, to_json
from utils.stage import stop_request
from utils.tokenizers.control_tokens import EOS_ID
from utils.tokenizers.load import load_tokenizer

KILLS = 200


@pytest.fixture
def corpus(tmp_path, texts):
    """Real documents with an exact copy, a near copy, a short one, bad lines, a picture."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    longest = max(texts, key=len)
    rows = [{"id": f"doc-{n}", "text": text} for n, text in enumerate(texts)]
    rows.append({"id": "copy", "text": texts[3].replace(" ", "  ")})
    rows.append({"id": "nearly", "text": longest + "\nOne more line."})
    rows.append({"id": "tiny", "text": "too short"})
    lines = [json.dumps(row) for row in rows]
    lines.insert(50, '{"text": "broken')
    lines.insert(51, '{"body": "other key"}')
    (folder / "docs.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "book.txt").write_text("\n\n".join(texts[:20]))
    (folder / "picture.png").write_bytes(b"\x89PNG")
    return folder


def _config(corpus, output, **settings):
    defaults = {
        "input_path": str(corpus), "output_dir": output, "vocab_size": 600, "language": None,
        "num_workers": 1, "train_ratio": 0.9, "sequence_length": 128, "max_length": 2000,
    }  # fmt: skip
    return PrepareConfig.build(defaults | settings)


def _contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".cache-"))


def test_the_folder_is_complete_and_whole(corpus, tmp_path):
    folder = prepare(_config(corpus, tmp_path / "out"))
    assert folder == tmp_path / "out"
    assert folder_damage(folder) is None
    assert set(_contents(folder)) == {
        "DATA_CARD.md", "inputs.json", "manifest.json", "settings.json", "stats.json",
        "rejected/bad_lines.jsonl",
        "rejected/exact_duplicate.jsonl", "rejected/near_duplicate.jsonl",
        "rejected/overlapping.jsonl", "rejected/too_short.jsonl", "sources/corpus.json",
        "tokenizer/TOKENIZER_CARD.md", "tokenizer/tokenizer.json", "tokenizer/tokenizer.model",
        "tokenizer/tokenizer_config.json", "tokens/train_00000.bin", "tokens/train_00000.idx",
        "tokens/val_00000.bin", "tokens/val_00000.idx", "train_00000.jsonl", "val_00000.jsonl",
    }  # fmt: skip
    manifest = read_dataset(folder)
    assert manifest["name"] == "corpus"
    assert manifest["vocab_size"] == 600
    assert manifest["token_dtype"] == "uint16"
    assert manifest["sequence_length"] == 128
    assert manifest["tokenizer_sha256"] == load_tokenizer(folder / "tokenizer").sha256
    assert str(tmp_path) not in (folder / "manifest.json").read_text()


def test_in_is_kept_and_dropped_and_bad(corpus, tmp_path, texts):
    folder = prepare(_config(corpus, tmp_path / "out"))
    stats = json.loads((folder / "stats.json").read_text())
    documents, characters = stats["documents"], stats["characters"]
    lines = (corpus / "docs.jsonl").read_text().splitlines()
    assert documents["in"] == len(lines) + 1
    assert documents["bad"] == 2
    assert documents["dropped"]["too_short"] == 1
    assert documents["dropped"]["exact_duplicate"] >= 1
    assert documents["dropped"]["near_duplicate"] >= 1
    assert documents["in"] + documents["added_by_splitting"] == (
        documents["kept"] + sum(documents["dropped"].values()) + documents["bad"]
    )
    assert (
        characters["in"]
        == characters["kept"]
        + characters["bad"]
        + sum(characters["dropped"].values())
        + characters["removed_by_cleaning"]
    )
    rows = [row for split in ("train", "val") for row in iter_documents(folder, split)]
    assert len(rows) == documents["kept"]
    assert sum(len(row["text"]) for row in rows) == characters["kept"]
    assert stats["files"] == {"read": 2, "skipped": {".png": 1}}


def test_bad_lines_lie_in_quarantine_with_file_line_and_reason(corpus, tmp_path):
    folder = prepare(_config(corpus, tmp_path / "out"))
    lines = (folder / "rejected" / "bad_lines.jsonl").read_text().splitlines()
    first, second = map(json.loads, lines)
    assert (first["file"], first["line"]) == ("docs.jsonl", 51)
    assert "not valid JSON" in first["reason"]
    assert second["reason"] == "no key 'text' (keys: body)"
    lines = (folder / "rejected" / "exact_duplicate.jsonl").read_text().splitlines()
    details = {row["id"]: row["detail"] for row in map(json.loads, lines)}
    assert details["copy"] == "of doc-3"


def test_shards_decode_to_the_documents(corpus, tmp_path):
    folder = prepare(_config(corpus, tmp_path / "out", shard_tokens=3000))
    tokenizer = load_tokenizer(folder / "tokenizer")
    for split in ("train", "val"):
        shards = TokenShards.open(folder, split)
        entry = read_dataset(folder)["splits"][split]
        documents = list(iter_documents(folder, split))
        assert entry["documents"] == len(documents) == shards.num_documents > 0
        assert entry["tokens"] == shards.num_tokens
        assert entry["text_bytes"] == sum(len(row["text"].encode()) for row in documents)
        offsets = shards.document_offsets[:].tolist()
        for row, start, end in zip(documents, offsets[:-1], offsets[1:], strict=True):
            *ids, last = shards.tokens[start:end].tolist()
            assert (tokenizer.decode(ids), last) == (row["text"], EOS_ID)
    assert len(read_dataset(folder)["splits"]["train"]["token_shards"]) > 2


def test_the_result_does_not_depend_on_processes_or_places(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.data.corpus.work_units.PART_BYTES", 9000)
    monkeypatch.setattr("utils.reading.file_parts.PART_BYTES", 9000)
    monkeypatch.setattr("utils.reading.streams.BLOCK_BYTES", 5000)
    monkeypatch.setattr(workers, "WORTH_A_POOL", 2)
    one = prepare(_config(corpus, tmp_path / "one", use_minhash=True))
    elsewhere = tmp_path / "moved" / "corpus"
    elsewhere.parent.mkdir()
    corpus.rename(elsewhere)
    monkeypatch.setattr("utils.data.corpus.work_units.PART_BYTES", 20_000)
    monkeypatch.setattr("utils.reading.file_parts.PART_BYTES", 20_000)
    two = prepare(_config(elsewhere, tmp_path / "two", num_workers=2))
    assert _contents(one) == _contents(two)


def test_an_archive_gives_what_its_files_give_with_any_number_of_processes(
    corpus, tmp_path, texts, monkeypatch
):
    write_book(corpus / "book.epub", book_files([f"{text} in a book" for text in texts[:30]]))
    packed = tmp_path / "packed"
    packed.mkdir()
    with zipfile.ZipFile(packed / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(corpus.iterdir()):
            if path.suffix != ".epub":
                archive.write(path, f"inner/{path.name}")
    (corpus / "book.epub").rename(packed / "book.epub")
    folders = {"corpus": corpus, "packed": packed}
    found = {}
    for name, folder in folders.items():
        out = prepare(_config(folder, tmp_path / f"{name}-out"))
        stats = json.loads((out / "stats.json").read_text())
        rows = [row for split in ("train", "val") for row in iter_documents(out, split)]
        found[name] = {row["text"] for row in rows}, stats["documents"]["bad"], stats["files"]
    assert found["corpus"][0] < found["packed"][0]
    assert found["corpus"][1] == found["packed"][1] == 2
    assert found["packed"][2] == {"read": 2, "skipped": {".png": 1}}
    monkeypatch.setattr("utils.reading.file_parts.PART_BYTES", 9000)  # archives are long now
    monkeypatch.setattr("utils.data.corpus.work_units.PART_BYTES", 9000)
    monkeypatch.setattr(workers, "WORTH_A_POOL", 2)
    again = prepare(_config(packed, tmp_path / "again", num_workers=2))
    assert _contents(again) == _contents(tmp_path / "packed-out")


def test_a_repeated_run_does_nothing_and_another_one_moves_the_old_aside(corpus, tmp_path):
    folder = prepare(_config(corpus, tmp_path / "out"))
    before, stamp = _contents(folder), (folder / "manifest.json").stat().st_mtime_ns
    prepare(_config(corpus, tmp_path / "out", num_workers=2))
    assert (folder / "manifest.json").stat().st_mtime_ns == stamp
    prepare(_config(corpus, tmp_path / "out", min_length=200))
    (aside,) = [path for path in tmp_path.iterdir() if path.name.startswith("out.")]
    assert _contents(aside) == before
    assert _contents(folder) != before


def test_a_damaged_result_is_made_again(corpus, tmp_path):
    folder = prepare(_config(corpus, tmp_path / "out"))
    before = _contents(folder)
    (folder / "train_00000.jsonl").write_text("cut")
    assert _contents(prepare(_config(corpus, tmp_path / "out"))) == before


@pytest.mark.parametrize("kind", ["none", "lz4"])
def test_a_flipped_byte_of_a_shard_is_named_and_made_good(corpus, tmp_path, caplog, stored, kind):
    folder = prepare(_config(corpus, tmp_path / "out", token_compression=kind))
    whole = _contents(folder)
    stored.clear()
    path = next((folder / "tokens").glob("train_00000.[bl]*"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert folder_damage(folder) == f"{path}: sha256 differs from manifest.json " + (
        "(a changed or flipped byte)"
    )
    assert _contents(prepare(_config(corpus, folder, token_compression=kind))) == whole
    assert f"{path}: sha256 differs" in caplog.text and not stored


def test_a_document_keeps_its_split_when_more_text_comes(corpus, tmp_path):
    first = prepare(_config(corpus, tmp_path / "first"))
    (corpus / "more.txt").write_text("A text that was not there before. " * 40)
    second = prepare(_config(corpus, tmp_path / "second"))
    for split, other in (("train", "val"), ("val", "train")):
        texts = {row["text"] for row in iter_documents(first, split)}
        assert not texts & {row["text"] for row in iter_documents(second, other)}


def test_a_tokenizer_is_used_again_and_a_new_one_is_copied(corpus, tmp_path, tokenizer_dir):
    cfg = _config(
        corpus, tmp_path / "out", reuse_tokenizer=True, tokenizer_path=tokenizer_dir, vocab_size=999
    )
    manifest = read_dataset(prepare(cfg))
    assert manifest["tokenizer_sha256"] == load_tokenizer(tokenizer_dir).sha256
    assert manifest["vocab_size"] == 600
    folder = prepare(_config(corpus, tmp_path / "new", tokenizer_path=tmp_path / "copy"))
    assert load_tokenizer(tmp_path / "copy").sha256 == read_dataset(folder)["tokenizer_sha256"]


def test_a_mixture_has_its_weights_and_says_so(tmp_path, texts):
    for name, part in (("a", texts[:120]), ("b", texts[120:])):
        (tmp_path / name).mkdir()
        lines = [json.dumps({"text": text}) for text in part]
        (tmp_path / name / "x.jsonl").write_text("\n".join(lines) + "\n")
    mixture = [
        {"name": "a", "input_path": str(tmp_path / "a"), "weight": 1},
        {"name": "b", "input_path": str(tmp_path / "b"), "weight": 3},
    ]
    cfg = _config(tmp_path, tmp_path / "out", mix_datasets=mixture, dataset_name="mixed")
    stats = json.loads((prepare(cfg) / "stats.json").read_text())
    assert [source["wanted_share"] for source in stats["sources"]] == [0.25, 0.75]
    assert [source["observed_share"] for source in stats["sources"]] == pytest.approx(
        [0.25, 0.75], abs=0.03
    )
    assert stats["documents"]["dropped"]["over_mixture_weight"] > 0


def test_the_account_of_each_source_adds_up_to_the_whole(corpus, tmp_path, texts):
    extra = tmp_path / "extra.txt"
    extra.write_text("\n\n".join(texts[150:]))
    mixture = [
        {"name": "the docs", "input_path": str(corpus), "weight": 30, "max_characters": 30_000},
        {"name": "extra", "input_path": str(extra), "weight": 3},
    ]
    protected = [ItemSet("quiz", "here", [texts[7]])]
    cfg = _config(tmp_path, tmp_path / "out", mix_datasets=mixture, dataset_name="mixed")
    folder = prepare(cfg, lambda: protected)
    stats, manifest = (
        json.loads((folder / n).read_text()) for n in ("stats.json", "manifest.json")
    )
    docs, more = (
        json.loads((folder / "sources" / name).read_text())
        for name in ("the_docs.json", "extra.json")
    )
    for key in ("documents", "characters"):
        for entry, total in stats[key].items():
            if entry == "dropped":
                assert total == dict(Counter(docs[key][entry]) + Counter(more[key][entry])) | {
                    reason: 0 for reason, lost in total.items() if not lost
                }
            else:
                assert total == docs[key][entry] + more[key][entry]
    for name, split in manifest["splits"].items():
        assert split["tokens"] == docs["splits"][name]["tokens"] + more["splits"][name]["tokens"]
        rows = [len(row["text"]) for row in iter_documents(folder, name)]
        assert sum(rows) == sum(one["splits"][name]["characters"] for one in (docs, more))
    assert docs["documents"]["bad"] == 2 and not more["documents"]["bad"]
    assert 29_000 < docs["characters"]["kept"] <= 30_000
    assert docs["observed_share"] + more["observed_share"] == pytest.approx(1, abs=2e-6)
    assert docs["wanted_share"] == round(30 / 33, 6)
    data = (corpus / "docs.jsonl").read_bytes()
    assert {"name": "docs.jsonl", "xxh3_128": xxhash.xxh3_128_hexdigest(data)} in docs["files"]
    assert [file["name"] for file in more["files"]] == ["extra.txt"]


def test_two_sources_of_one_name_are_refused():
    for names in (("a b", "A_b"), ("x", "x")):
        mixture = [{"name": name, "input_path": "pydocs"} for name in names]
        with pytest.raises(ConfigError, match=f"two sources called '{names[0]}'"):
            PrepareConfig.build({"mix_datasets": mixture})
    mixture = [{"name": n, "input_path": "pydocs", "max_share": 0.4} for n in ("a", "b")]
    with pytest.raises(ConfigError, match="max_share of all sources must make 1 or more"):
        PrepareConfig.build({"mix_datasets": mixture})
    shares = zip("abc", (0.7, 0.2, 0.1), strict=True)
    exact = [{"name": n, "input_path": "pydocs", "max_share": share} for n, share in shares]
    assert len(PrepareConfig.build({"mix_datasets": exact}).sources) == 3


def test_two_documents_are_enough_and_one_is_not(tmp_path):
    source = tmp_path / "small.txt"
    text = "".join(f"Sentence number {n} about something. " for n in range(200))
    source.write_text(text[:1500])
    with pytest.raises(DataError, match=r"1 document left of 1.*two are needed.*--max_length"):
        prepare(_config(source, tmp_path / "out", vocab_size=300))
    assert not (tmp_path / "out").exists()
    folder = prepare(_config(source, tmp_path / "out", vocab_size=300, max_length=1000))
    assert [read_dataset(folder)["splits"][split]["documents"] for split in ("train", "val")] == [
        1,
        1,
    ]


def test_an_empty_corpus_says_what_became_of_it(tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text('{"body": "a"}\n{"text": "short"}\n')
    with pytest.raises(DataError, match=r"no document left of 2 \(1 too_short, 1 bad \(first: rows.jsonl:1: no key 'text' \(keys: body\)\)\)"):  # fmt: skip  # noqa: E501
        prepare(_config(source, tmp_path / "out"))
    source.write_text("")
    with pytest.raises(DataError, match="no document left of 0"):
        prepare(_config(source, tmp_path / "out"))


def test_too_many_pieces_for_a_corpus_are_refused(corpus, tmp_path):
    with pytest.raises(DataError, match="lower --vocab_size"):
        prepare(_config(corpus, tmp_path / "out", vocab_size=60_000))
    assert _visible(tmp_path) == ["corpus"]


def test_a_folder_with_other_things_is_never_touched(corpus, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="holds something else"):
        prepare(_config(corpus, tmp_path / "mine"))
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_full_disk_is_one_line_and_leaves_the_old_result(corpus, tmp_path, monkeypatch):
    folder = prepare(_config(corpus, tmp_path / "out"))
    before = _contents(folder)
    write = Path.write_text

    def full(path, *args, **kwargs):
        if path.name == "DATA_CARD.md":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(LumiError, match=r"disk full while writing .*MB free, about \d+ MB needed"):
        prepare(_config(corpus, tmp_path / "out", min_length=60))
    assert _contents(folder) == before
    assert _visible(tmp_path) == ["corpus", "out"]


def test_a_stop_request_leaves_no_half_result(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(stop_request, "signal_number", 15)
    with pytest.raises(Interrupted):
        prepare(_config(corpus, tmp_path / "out"))
    assert _visible(tmp_path) == ["corpus"]


@pytest.fixture
def small_units(monkeypatch):
    """Cut the corpus into many units."""
    for module in ("data.corpus.work_units", "reading.file_parts"):
        monkeypatch.setattr(f"utils.{module}.PART_BYTES", 9000)


@pytest.fixture
def stored(monkeypatch):
    """Names of the results that are stored; at most `stored.left` more are, then it is stopped."""

    class Names(list):
        left = 10**9

    names, put = Names(), ResultCache.put

    def watched(store, name, arrays, record):
        if not names.left:
            raise Interrupted("stopped")
        names.left -= 1
        names.append(name.partition("-")[0])
        put(store, name, arrays, record)

    monkeypatch.setattr(ResultCache, "put", watched)
    return names


def test_a_run_that_is_stopped_again_and_again_ends_with_the_same_bytes(
    corpus, tmp_path, small_units, stored
):
    whole = _contents(prepare(_config(corpus, tmp_path / "whole")))
    wanted = Counter(stored)
    stored.clear()
    folder = None
    while folder is None:
        stored.left = 3
        try:
            folder = prepare(_config(corpus, tmp_path / "out"))
        except Interrupted:
            assert not (tmp_path / "out").exists()
    assert _contents(folder) == whole
    assert Counter(stored) == wanted, "something was made twice"
    assert wanted["clean"] > 8 and wanted["ids"] == wanted["cuts"] == wanted["clean"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".cache-out", ".cache-whole", "corpus", "out", "whole"
    ]  # fmt: skip


def test_other_settings_cost_only_what_they_change(corpus, tmp_path, small_units, stored):
    prepare(_config(corpus, tmp_path / "out"))
    stored.clear()
    prepare(_config(corpus, tmp_path / "out", vocab_size=500))
    assert set(stored) == {"tokenizer", "ids"}
    stored.clear()
    path = corpus / "docs.jsonl"
    path.write_text(path.read_text().replace("too short", "too schort"))
    prepare(_config(corpus, tmp_path / "out", vocab_size=500))
    assert Counter(stored) == {"clean": 1, "cuts": 1, "fates": 1, "tokenizer": 1, "ids": 1}
    stored.clear()
    stored.clear()
    packed = prepare(_config(corpus, tmp_path / "out", vocab_size=500, token_compression="lz4"))
    assert read_dataset(packed)["format"] == 2 and not stored
    prepare(_config(corpus, tmp_path / "out", vocab_size=500))
    assert not stored
    again = prepare(_config(corpus, tmp_path / "again", vocab_size=500, keep_cache=False))
    assert list((tmp_path / ".cache-again").iterdir()) == []
    assert _contents(again) == _contents(tmp_path / "out")


def test_packed_tokens_are_the_same_tokens_in_a_folder_that_is_otherwise_the_same(corpus, tmp_path):
    settings = {"shard_tokens": 3000, "num_workers": 2}
    plain, packed = (
        prepare(_config(corpus, tmp_path / name, token_compression=name, **settings))
        for name in ("none", "lz4")
    )
    found, wanted = read_dataset(packed), read_dataset(plain)
    assert (found.pop("format"), wanted.pop("format")) == (2, 1)
    assert found.pop("token_compression") == "lz4" and "token_compression" not in wanted
    for manifest in (found, wanted):
        del manifest["files"]
    assert to_json(found).replace(".lz4", ".bin") == to_json(wanted)
    for name, data in _contents(plain).items():
        if name.endswith(".bin"):
            with lz4.frame.open((packed / name).with_suffix(".lz4")) as file:
                assert file.read() == data
        elif name.split("/")[-1] not in ("manifest.json", "settings.json"):
            assert (packed / name).read_bytes() == data, name
    for split in ("train", "val"):
        one, other = (TokenShards.open(folder, split) for folder in (plain, packed))
        assert np.array_equal(one.tokens[:], other.tokens[:])
    rows = [PackedDataset.open(folder, "train", 64).batch(3, 5, 100) for folder in (plain, packed)]
    assert torch.equal(*rows)


def test_the_manifest_of_unpacked_shards_tells_nothing_of_packing(corpus, tmp_path):
    """The setting came later: folders made before it are recognised."""
    manifest = read_dataset(prepare(_config(corpus, tmp_path / "out")))
    assert manifest["format"] == 1 and "token_compression" not in manifest
    packed = read_dataset(prepare(_config(corpus, tmp_path / "packed", token_compression="lz4")))
    assert packed["settings_hash"] == manifest["settings_hash"]


def test_a_damaged_result_of_a_step_is_made_again(corpus, tmp_path, small_units, stored):
    whole = _contents(prepare(_config(corpus, tmp_path / "out")))
    for path in sorted((tmp_path / ".cache-out").glob("*.safetensors"))[::3]:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    (tmp_path / "out" / "train_00000.jsonl").unlink()
    stored.clear()
    assert _contents(prepare(_config(corpus, tmp_path / "out"))) == whole
    assert stored


class _FullDisk:
    """A file whose `number`-th write, counted over all such files, fails as on a full disk."""

    def __init__(self, file, counted, number):
        self._file, self._counted, self._number = file, counted, number

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        self._file.close()

    def write(self, data):
        self._counted[0] += 1
        if self._counted[0] == self._number:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._file.write(data)

    def writelines(self, lines):
        self.write(b"".join(lines))


@contextlib.contextmanager
def _failing_write(number):
    """Let the `number`-th write to any file fail as on a full disk; yield the count of writes."""
    counted, plain = [0], io.open

    def opened(path, mode="r", *args, **kwargs):
        file = plain(path, mode, *args, **kwargs)
        return file if mode in {"r", "rb"} else _FullDisk(file, counted, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(io, "open", opened)
        yield counted


def _check_full_disks(corpus, tmp_path, numbers):
    whole = _contents(prepare(_config(corpus, tmp_path / "whole")))
    for number in numbers:
        out = tmp_path / f"out{number}"
        with _failing_write(number), pytest.raises(LumiError, match=r"disk full .* MB needed"):
            prepare(_config(corpus, out))
        assert not out.exists()
        assert _contents(prepare(_config(corpus, out))) == whole
        left = [path.name for path in tmp_path.iterdir() if path.name.endswith(out.name)]
        assert sorted(left) == [f".cache-{out.name}", out.name]
        assert not list((tmp_path / f".cache-{out.name}").glob(".tmp-*"))


def _count_writes(corpus, tmp_path):
    with _failing_write(None) as counted:
        prepare(_config(corpus, tmp_path / "counted"))
    return counted[0]


def test_a_full_disk_anywhere_is_one_line_and_a_plain_run_finishes(corpus, tmp_path, small_units):
    writes = _count_writes(corpus, tmp_path)
    assert writes > 100
    _check_full_disks(corpus, tmp_path, [1, writes // 3, writes // 2, writes - 4])


@pytest.mark.slow
def test_a_full_disk_at_every_write_is_one_line(corpus, tmp_path, small_units):
    _check_full_disks(corpus, tmp_path, range(1, _count_writes(corpus, tmp_path) + 1))


@pytest.mark.slow
def test_kills_at_any_moment_with_any_number_of_workers_change_nothing(
    corpus, tmp_path, small_units
):
    chance, started = random.Random(), time.monotonic()
    whole = _contents(prepare(_config(corpus, tmp_path / "whole")))
    longest = 1.2 * (time.monotonic() - started)
    kills = finished = 0
    while kills < KILLS or not finished:
        out = tmp_path / f"out{finished}"
        child = os.fork()
        if not child:
            os.setsid()
            with contextlib.suppress(BaseException):
                prepare(_config(corpus, out, num_workers=chance.choice([1, 2, 3])))
                os._exit(0)
            os._exit(1)
        deadline = time.monotonic() + chance.uniform(0, longest)
        while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < deadline:
            time.sleep(0.01)
        if ended[0]:
            assert os.waitstatus_to_exitcode(ended[1]) == 0
            assert _contents(out) == whole
            finished += 1
        else:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            kills += 1
    names = {path.name for path in tmp_path.iterdir()}
    last = f"out{finished}"  # may have been begun
    done = {f"{hidden}out{number}" for number in range(finished) for hidden in ("", ".cache-")}
    assert {name for name in names if not name.endswith(last)} == (
        done | {"corpus", "whole", ".cache-whole"}
    )


MEASURED = """
import re, resource, sys
from pathlib import Path

import py3langid, rensa, transformers
from transformers import LlamaTokenizer
from utils.config.prepare import PrepareConfig
from utils.data.cleaning.langid import language_model
from tests.stage01 import prepare
from utils.data.dedup.shingling import gram_hashes

gram_hashes(["a b \\u00e9"])
language_model()
size = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (size + (512 << 20),) * 2)
print(prepare(PrepareConfig(
    input_path=sys.argv[1], output_dir=sys.argv[2], num_workers=1, vocab_size=2000,
    language_threshold=0,
)))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_half_a_gigabyte_is_enough(tmp_path, root):
    chance = random.Random(1)
    words = [f"{chance.choice('bdfgklmnprst')}{chance.choice('aeiou')}{n:x}" for n in range(9000)]
    words += ["the", "of", "and", "that", "with", "there"] * 900
    with (tmp_path / "docs.jsonl").open("w") as file:
        for _ in range(20_000):
            file.write(json.dumps({"text": " ".join(chance.choices(words, k=500))}) + "\n")
    assert (tmp_path / "docs.jsonl").stat().st_size > 40_000_000
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "docs.jsonl"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr[-2000:]
    assert read_dataset(tmp_path / "out")["splits"]["train"]["documents"] > 10_000


def test_what_a_kill_left_behind_goes_with_the_next_run(corpus, tmp_path):
    folder = prepare(_config(corpus, tmp_path / "out"))
    (tmp_path / ".work-out").mkdir()
    half = tmp_path / ".cache-out" / ".tmp-ids-1.json"
    half.write_text("{")
    before = (folder / "manifest.json").stat().st_mtime_ns
    prepare(_config(corpus, tmp_path / "out"))
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    assert not half.exists() and not (tmp_path / ".work-out").exists()


def test_a_full_disk_tells_no_need_that_is_not_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with _failing_write(1), pytest.raises(LumiError, match=r"\(\d+ MB free\): free some space"):
        prepare(PrepareConfig(output_dir=tmp_path / "out", language=None))
