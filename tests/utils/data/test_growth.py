"""Files that come later make new shards, and nothing that is there changes."""

import json
import random

import pytest

from tests.stage01 import prepare
from utils.config.prepare import PrepareConfig
from utils.data.corpus.decontamination import ItemSet
from utils.data.dedup.minhash import jaccard
from utils.data.dedup.shingling import shingles
from utils.data.growth import plan_rounds
from utils.data.tokens.shards import TokenShards, iter_documents, read_dataset
from utils.files import folder_damage

ONE, TWO, THREE = {"a": "1", "b": "2"}, {"c": "3"}, {"d": "4"}


@pytest.mark.parametrize(
    ("files", "recorded", "rounds", "reason"),
    [
        (ONE, [], [ONE], None),
        (ONE, [ONE], [ONE], None),
        (ONE | TWO, [ONE], [ONE, TWO], None),
        (THREE | TWO | ONE, [ONE, TWO], [ONE, TWO, THREE], None),
        (TWO, [ONE], [TWO], "a is gone"),
        (ONE | {"b": "9"}, [ONE, TWO], [ONE | {"b": "9"}], "b has changed"),
    ],
)
def test_new_files_make_a_round_and_changed_ones_a_new_start(files, recorded, rounds, reason):
    assert plan_rounds(files, recorded) == (rounds, reason)


def _config(corpus, output, **settings):
    return PrepareConfig.build({
        "input_path": str(corpus), "output_dir": output, "vocab_size": 600, "language": None,
        "num_workers": 1, "train_ratio": 0.8, "shard_tokens": 3000, **settings,
    })  # fmt: skip


def _write(path, rows):
    path.write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in rows))


def _shards(folder):
    names = [name for name in read_dataset(folder)["files"] if "_0" in name]
    return {name: (folder / name).read_bytes() for name in names}


def _places(folder, split):
    return {row["id"]: row["text"] for row in iter_documents(folder, split)}


@pytest.fixture
def corpus(tmp_path, texts):
    folder = tmp_path / "corpus"
    folder.mkdir()
    rows = [(f"m{n}", text) for n, text in enumerate(texts[: len(texts) // 2])]
    _write(folder / "m.jsonl", rows)
    return folder


@pytest.mark.parametrize("form", ["none", "lz4"])
def test_a_new_file_gives_new_shards_only(corpus, tmp_path, texts, caplog, form):
    caplog.set_level("INFO")
    settings = {"token_compression": form}
    folder = prepare(_config(corpus, tmp_path / "out", **settings))
    before, sides = _shards(folder), {split: _places(folder, split) for split in ("train", "val")}
    inodes = {name: (folder / name).stat().st_ino for name in before}
    tokenizer = read_dataset(folder)["tokenizer_sha256"]
    _write(corpus / "a.jsonl", [(f"a{n}", text) for n, text in enumerate(texts[len(texts) // 2 :])])
    assert prepare(_config(corpus, tmp_path / "out", **settings)) == folder
    assert "1 new file(s): new shards" in caplog.text
    after = _shards(folder)
    assert before.items() < after.items()
    assert {name: (folder / name).stat().st_ino for name in before} == inodes
    assert read_dataset(folder)["tokenizer_sha256"] == tokenizer
    for split, held in sides.items():
        now = _places(folder, split)
        assert held.items() <= now.items()
        assert {name[0] for name in now.keys() - held.keys()} == {"a"}
        assert TokenShards.open(folder, split).num_documents == len(now)
    assert folder_damage(folder) is None
    stats = json.loads((folder / "stats.json").read_text())
    assert stats["documents"]["in"] == len(texts)
    assert [one["files"] for one in stats["rounds"]] == [1, 1]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == ["out"]
    caplog.clear()
    prepare(_config(corpus, tmp_path / "out", **settings))
    assert "already prepared" in caplog.text
    if form == "none":  # packed later, the rounds stay
        prepare(_config(corpus, tmp_path / "out", token_compression="lz4"))
        names = {name.replace(".bin", ".lz4") for name in after}
        assert _shards(folder).keys() == names


@pytest.mark.parametrize("keep_cache", [True, False])
def test_a_grown_folder_is_the_same_with_and_without_what_was_kept(
    corpus, tmp_path, texts, keep_cache
):
    rest = texts[len(texts) // 2 :]
    contents = []
    for name, cache in (("one", True), ("two", keep_cache)):
        own = tmp_path / name / "texts"
        own.mkdir(parents=True)
        _write(own / "m.jsonl", [(f"m{n}", text) for n, text in enumerate(texts[:100])])
        for at in range(2):
            folder = prepare(_config(own, tmp_path / f"out-{name}" / "set", keep_cache=cache))
            _write(own / f"{at}.jsonl", [(f"{at}-{n}", text) for n, text in enumerate(rest[at::2])])
        if name == "two":  # a flipped byte: the shards are written again, as they were
            path = folder / "tokens" / "train_00000.bin"
            path.write_bytes(path.read_bytes()[:-1] + b"\x77")
        folder = prepare(_config(own, tmp_path / f"out-{name}" / "set", keep_cache=cache))
        contents.append({
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()
        })  # fmt: skip
    assert contents[0] == contents[1]
    assert len(json.loads(contents[0]["inputs.json"])["rounds"]) == 3


def test_a_changed_file_and_other_settings_begin_anew(corpus, tmp_path, texts, caplog):
    caplog.set_level("INFO")
    folder = prepare(_config(corpus, tmp_path / "out"))
    _write(corpus / "a.jsonl", [("a", texts[-1])])
    path = corpus / "m.jsonl"
    path.write_text(path.read_text().replace("the", "teh"))
    prepare(_config(corpus, tmp_path / "out"))
    assert "m.jsonl has changed: everything is prepared anew" in caplog.text
    assert len(json.loads((folder / "inputs.json").read_text())["rounds"]) == 1
    _write(corpus / "b.jsonl", [("b", texts[-2])])
    prepare(_config(corpus, tmp_path / "out", grow=False))
    assert len(json.loads((folder / "inputs.json").read_text())["rounds"]) == 1
    _write(corpus / "c.jsonl", [("c", texts[-3])])
    prepare(_config(corpus, tmp_path / "out", vocab_size=500))
    assert len(json.loads((folder / "inputs.json").read_text())["rounds"]) == 1


def _edited(words, edits, chance):
    words = list(words)
    for at in chance.sample(range(len(words)), edits):
        words[at] = f"x{chance.random()}"
    return words


def test_a_link_between_two_settled_documents_changes_neither(tmp_path):
    chance = random.Random(3)
    base = [f"w{chance.randrange(10**6)}" for _ in range(200)]
    left, right = _edited(base, 4, chance), _edited(base, 4, chance)
    first = [("left", " ".join(left)), ("right", " ".join(right))]
    middle = " ".join(base)
    grams = [shingles(text) for text in (*(text for _, text in first), middle)]
    assert (
        jaccard(grams[0], grams[1])
        < 0.8
        <= min(jaccard(grams[0], grams[2]), jaccard(grams[1], grams[2]))
    )
    other = [
        (f"other{n}", " ".join(f"w{chance.randrange(10**6)}" for _ in range(100)))
        for n in range(60)
    ]
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    _write(corpus / "1.jsonl", first + other)
    settings = {"vocab_size": 400, "decontaminate": False}
    folder = prepare(_config(corpus, tmp_path / "out", **settings))
    held = _places(folder, "train") | _places(folder, "val")
    assert {"left", "right"} <= held.keys()
    _write(
        corpus / "2.jsonl",
        [("middle", middle), ("other", other[3][1]), ("new", " ".join(left[::-1]))],
    )
    prepare(_config(corpus, tmp_path / "out", **settings))
    now = _places(folder, "train") | _places(folder, "val")
    assert held.items() <= now.items()
    assert now.keys() - held.keys() == {"new"}
    stats = json.loads((folder / "stats.json").read_text())
    assert stats["documents"]["dropped"] == {"exact_duplicate": 1, "near_duplicate": 1}


def test_new_validation_documents_that_were_trained_on_are_left_out(tmp_path, texts):
    chance = random.Random(5)
    known = [" ".join(f"w{chance.randrange(10**6)}" for _ in range(40)) for _ in range(60)]
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    rows = [(f"m{n}", f"{known[2 * n]}\n\n{known[2 * n + 1]}") for n in range(30)]
    _write(corpus / "m.jsonl", rows)
    protected = ItemSet("benchmark", "here", [known[5], "one that is not there " * 9])
    settings = {"vocab_size": 400, "use_minhash": False, "train_ratio": 0.5}

    def run():
        return prepare(_config(corpus, tmp_path / "out", **settings), lambda: [protected])

    folder = run()
    trained = "\n".join(_places(folder, "train").values())
    more = [(f"{name}p", f"{text}\n\n{known[n]} and more") for n, (name, text) in enumerate(rows)]
    _write(corpus / "n.jsonl", [(f"n{n}", text) for n, text in enumerate(known)] + more)
    run()
    validation, training = _places(folder, "val"), _places(folder, "train")
    assert [name for name, text in validation.items() if name[0] == "n" and text in trained] == []
    assert not any(one in text for one in validation.values() for text in training.values())
    assert not any(known[5] in text for name, text in training.items())
    stats = json.loads((folder / "stats.json").read_text())
    assert stats["documents"]["dropped"]["contaminated"] > 10
    assert stats["decontamination"]["sets"][0]["items_found"] == 1
