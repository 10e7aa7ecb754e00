"""Stage 01 as a whole: the same bytes every time, every document accounted for, nothing lost."""

import errno
import json
from pathlib import Path

import pytest

from utils.config.prepare import PrepareConfig
from utils.data import workers
from utils.data.prepare import prepare
from utils.data.shards import TokenShards, iter_documents, read_dataset
from utils.data.tokenizer import EOS_ID, Tokenizer
from utils.errors import DataError, Interrupted, LumiError
from utils.files import folder_damage
from utils.stage import stop_request


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


def test_the_folder_is_complete_and_whole(corpus, tmp_path):
    folder = prepare(_config(corpus, tmp_path / "out"))
    assert folder == tmp_path / "out"
    assert folder_damage(folder) is None
    assert set(_contents(folder)) == {
        "DATA_CARD.md", "manifest.json", "settings.json", "stats.json",
        "rejected/bad_lines.jsonl", "rejected/exact_duplicate.jsonl",
        "rejected/near_duplicate.jsonl", "rejected/too_short.jsonl",
        "tokenizer/TOKENIZER_CARD.md", "tokenizer/tokenizer.json", "tokenizer/tokenizer.model",
        "tokenizer/tokenizer_config.json", "tokens/train_00000.bin", "tokens/train_00000.idx",
        "tokens/val_00000.bin", "tokens/val_00000.idx", "train_00000.jsonl", "val_00000.jsonl",
    }  # fmt: skip
    manifest = read_dataset(folder)
    assert manifest["name"] == "corpus"
    assert manifest["vocab_size"] == 600
    assert manifest["token_dtype"] == "uint16"
    assert manifest["sequence_length"] == 128
    assert manifest["tokenizer_sha256"] == Tokenizer.load(folder / "tokenizer").sha256
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
    tokenizer = Tokenizer.load(folder / "tokenizer")
    for split in ("train", "val"):
        shards = TokenShards.open(folder, split)
        entry = read_dataset(folder)["splits"][split]
        documents = list(iter_documents(folder, split))
        assert entry["documents"] == len(documents) == shards.num_documents > 0
        assert entry["tokens"] == shards.num_tokens
        assert entry["text_bytes"] == sum(len(row["text"].encode()) for row in documents)
        offsets = shards.document_offsets.tolist()
        for row, start, end in zip(documents, offsets[:-1], offsets[1:], strict=True):
            *ids, last = shards.tokens[start:end].tolist()
            assert (tokenizer.decode(ids), last) == (row["text"], EOS_ID)
    assert len(read_dataset(folder)["splits"]["train"]["token_shards"]) > 2


def test_the_result_does_not_depend_on_processes_or_places(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.data.steps.BATCH_CHARACTERS", 9000)
    monkeypatch.setattr(workers, "WORTH_A_POOL", 2)
    one = prepare(_config(corpus, tmp_path / "one", use_minhash=True))
    elsewhere = tmp_path / "moved" / "corpus"
    elsewhere.parent.mkdir()
    corpus.rename(elsewhere)
    monkeypatch.setattr("utils.data.steps.BATCH_CHARACTERS", 20_000)
    two = prepare(_config(elsewhere, tmp_path / "two", num_workers=2))
    assert _contents(one) == _contents(two)


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
    assert manifest["tokenizer_sha256"] == Tokenizer.load(tokenizer_dir).sha256
    assert manifest["vocab_size"] == 600
    folder = prepare(_config(corpus, tmp_path / "new", tokenizer_path=tmp_path / "copy"))
    assert Tokenizer.load(tmp_path / "copy").sha256 == read_dataset(folder)["tokenizer_sha256"]


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
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


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
    with pytest.raises(LumiError, match="disk full while writing"):
        prepare(_config(corpus, tmp_path / "out", min_length=60))
    assert _contents(folder) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "out"]


def test_a_stop_request_leaves_nothing_behind(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(stop_request, "signal_number", 15)
    with pytest.raises(Interrupted):
        prepare(_config(corpus, tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]
