"""Data sets of the hub, in the layouts of the real ones, served from this machine."""

import gzip
import io
import json

import datasets
import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from tests.stage01 import prepare
from utils.config.prepare import MixtureSource, PrepareConfig
from utils.data.cleaning.batch import Rules
from utils.data.corpus import work_units as units
from utils.data.corpus.sources import fetch, find_source
from utils.data.corpus.work_units import iter_units
from utils.errors import DataError
from utils.files import folder_damage
from utils.reading import file_parts


@pytest.fixture
def read(hub, monkeypatch):
    """Read a data set: records, how its units are read, their names, files fetched, commit."""
    from huggingface_hub import constants

    for module in (file_parts, units):
        monkeypatch.setattr(module, "PART_BYTES", 20_000)

    def read(place, workers=3, cache="hub", **settings):
        monkeypatch.setattr(constants, "HF_HUB_CACHE", f"{hub.env['HF_HOME']}/{cache}")
        source = find_source(MixtureSource(name="mine", input_path=place, **settings))
        fetch(source, 1, workers)
        found = list(iter_units(source, 0, Rules(1, 1000, None, "py3langid", 0.5, None), "text", 1))
        kinds = {"parts" if unit.parts else "batch" for unit in found}
        records = [record for unit in found for record in unit.records()]
        names = [unit.name for unit in found]
        return records, kinds, names, [file.path for file in source.fetched], source.revision

    return read


def _library(place, config, split="train"):
    """The texts of a data set as its own library streams them."""
    rows = datasets.load_dataset(place, config, split=split, streaming=True)
    return [row["text"] for row in rows]


def _parquet(rows, group=40):
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file, row_group_size=group)
    return file.getvalue()


def _card(**configs):
    """README.md with the files of the train split of each configuration."""
    lines = ["---", "configs:"]
    for name, path in configs.items():
        lines += [f"- config_name: {name.replace('__', '.').replace('_', '-')}", "  data_files:"]
        lines += ["  - split: train", f"    path: {path}"]
    return "\n".join([*lines, "---", ""]).encode()


@pytest.fixture
def datasets_like_the_real_ones(hub, texts):
    """The layouts of C4, FineWeb, Wikipedia, OpenWebText and WikiText."""
    parts = [texts[:70], texts[70:75], texts[75:150], texts[150:]]
    c4 = {
        f"en/c4-train.{n:05d}-of-00004.json.gz": gzip.compress(
            "\n".join(
                json.dumps({"text": text, "timestamp": "2019-04-25T12:57:54Z", "url": "http://x"})
                for text in part
            ).encode()
        )
        for n, part in enumerate(parts)
    }
    c4["en/c4-validation.00000-of-00001.json.gz"] = gzip.compress(b'{"text": "validation"}\n')
    card = b"""---
configs:
- config_name: en
  data_files:
  - split: train
    path: en/c4-train.*.json.gz
  - split: validation
    path: en/c4-validation.*.json.gz
---
"""
    hub.add("allenai/c4", {"README.md": card, **c4})
    hub.add(
        "HuggingFaceFW/fineweb-edu",
        {"README.md": _card(default="data/*/*", sample_10BT="sample/10BT/*")}
        | {
            f"sample/10BT/{n:03d}_00000.parquet": _parquet(
                [
                    {"text": text, "id": f"<urn:uuid:{n}-{at}>", "dump": "CC-MAIN-2024-10",
                     "url": "http://x", "date": "2024", "language": "en",
                     "language_score": 0.9, "token_count": 7, "score": 3.2, "int_score": 3}
                    for at, text in enumerate(part)
                ]
            )
            for n, part in enumerate(parts)
        }
        | {"data/CC-MAIN-2013-20/train-00000-of-00014.parquet": _parquet([{"text": "other"}])},
    )  # fmt: skip
    hub.add(
        "wikimedia/wikipedia",
        {"README.md": _card(**{"20231101__en": "20231101.en/train-*"})}
        | {
            f"20231101.en/train-{n:05d}-of-00004.parquet": _parquet(
                [
                    {"id": str(100 * n + at), "url": "http://x", "title": "T", "text": text}
                    for at, text in enumerate(part)
                ]
            )
            for n, part in enumerate(parts)
        },
    )
    hub.add(
        "Skylion007/openwebtext",
        {"README.md": b"# OpenWebText\n"}
        | {
            f"plain_text/train-{n:05d}-of-00004.parquet": _parquet([{"text": t} for t in part])
            for n, part in enumerate(parts)
        },
    )
    lines = [
        {"text": line}
        for number, text in enumerate(texts[:60])
        for line in ("", f" = Article {number} = \n", "", *(f" {s}\n" for s in text.split("\n")))
    ]
    middle = len(lines) // 2 + 1
    hub.add(
        "Salesforce/wikitext",
        {"README.md": _card(wikitext_2_raw_v1="wikitext-2-raw-v1/train-*")}
        | {
            f"wikitext-2-raw-v1/train-{n:05d}-of-00002.parquet": _parquet(part, 500)
            for n, part in enumerate([lines[:middle], lines[middle:]])
        },
    )
    return hub


@pytest.mark.parametrize(
    ("place", "config", "ways"),
    [
        ("allenai/c4", "en", {"batch", "parts"}),
        ("HuggingFaceFW/fineweb-edu", "sample-10BT", {"parts"}),
        ("wikimedia/wikipedia", "20231101.en", {"parts"}),
        ("Skylion007/openwebtext", None, {"parts"}),
    ],
)
def test_the_rows_are_those_of_the_library_for_any_number_of_workers(
    datasets_like_the_real_ones, read, place, config, ways
):
    one = read(place, 1, input_config=config)
    records, kinds, names, fetched, revision = one
    assert [record.text for record in records] == _library(place, config)
    assert len({record.id for record in records}) == len(records)
    assert kinds == ways and len(set(names)) == len(names) >= 4
    assert len(fetched) == 4 and revision == datasets_like_the_real_ones.sha(place)
    assert read(place, 4, cache="other", input_config=config) == one


def test_a_row_is_named_by_its_own_id_or_by_file_and_line(datasets_like_the_real_ones, read):
    wikipedia = read("wikipedia")[0]
    assert [row.id for row in wikipedia[:2]] == ["0", "1"]
    c4 = read("c4")[0]
    assert c4[1].id == "en/c4-train.00000-of-00004.json.gz:2"
    owt = read("openwebtext")[0]
    assert owt[69].id == "plain_text/train-00000-of-00004.parquet:70"


def test_lines_of_wikitext_are_joined_to_articles_over_the_files(
    datasets_like_the_real_ones, read, texts
):
    records = read("wikitext-2-raw-v1")[0]
    articles = [record.text for record in records]
    wanted = [
        "\n".join([f" = Article {number} = ", "", *(f" {line}" for line in text.split("\n"))])
        for number, text in enumerate(texts[:60])
    ]
    assert [" ".join(article.split()) for article in articles if article.strip()] == [
        " ".join(article.split()) for article in wanted
    ]
    assert read("wikitext-2-raw-v1", max_samples=5)[0] == records[:5]


def test_of_a_limited_data_set_only_the_needed_files_are_fetched(datasets_like_the_real_ones, read):
    hub = datasets_like_the_real_ones
    whole = read("fineweb-edu", cache="other")[0]
    hub.sent.clear()
    records, kinds, _, fetched, _ = read("fineweb-edu", max_samples=70)
    assert records == whole[:70] and kinds == {"batch"}
    assert fetched == ["sample/10BT/000_00000.parquet"]
    assert {path for path in hub.sent if path.endswith("parquet")} == set(fetched)
    records, _, _, fetched, _ = read("fineweb-edu", max_samples=71)
    assert records == whole[:71] and len(fetched) == 2
    assert read("fineweb-edu", 1, max_samples=71)[3] == fetched


def _offline(monkeypatch):
    from huggingface_hub import constants

    for module in (constants, datasets.config):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", True)


def test_what_was_fetched_is_read_without_the_hub(datasets_like_the_real_ones, read, monkeypatch):
    hub = datasets_like_the_real_ones
    found, some = read("wikipedia"), read("fineweb-edu", max_samples=5)
    hub.requests = 0
    _offline(monkeypatch)
    assert read("wikipedia") == found
    assert read("fineweb-edu", max_samples=5) == some
    with pytest.raises(DataError, match=r"001_00000.parquet of .* is not in the cache"):
        read("fineweb-edu")
    with pytest.raises(DataError, match="cannot load hub data set allenai/c4"):
        read("c4")
    assert not hub.requests


def test_a_hub_out_of_reach_is_one_line_with_the_ways_out(
    datasets_like_the_real_ones, read, monkeypatch
):
    from huggingface_hub import constants

    read("fineweb-edu", max_samples=5)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        DataError, match=r"check the connection, set HF_HUB_OFFLINE=1 .* or use"
    ) as e:
        read("fineweb-edu", max_samples=5)
    assert "\n" not in str(e.value)
    with pytest.raises(DataError, match=r"check the connection, or use local files"):
        read("c4")


def test_each_thing_that_is_missing_has_its_line(datasets_like_the_real_ones, read):
    hub = datasets_like_the_real_ones
    with pytest.raises(DataError, match="the hub has no data set lumi/none, and there is no such"):
        read("lumi/none")
    with pytest.raises(DataError, match="no split test: set --input_split to one of train, valid"):
        read("c4", input_split="test")
    with pytest.raises(DataError, match=r"'de' not found. Available: \['en'\]: set --input_config"):
        read("allenai/c4", input_config="de")
    hub.gated.add("allenai/c4")
    with pytest.raises(DataError, match=r"allenai/c4 \(en\) is gated: accept its terms and set HF"):
        read("c4")


def test_other_plain_files_are_read_and_others_are_streamed(hub, read, texts):
    rows = "\n".join(json.dumps({"text": text}) for text in texts[:30]).encode()
    hub.add("org/packed", {"data/train.jsonl.zst": zstandard.compress(rows)})
    records, *_, fetched, _ = read("org/packed")
    assert [record.text for record in records] == texts[:30] and len(fetched) == 1
    assert [record.text for record in records] == _library("org/packed", None)
    hub.add("org/texts", {"train.txt": "\n".join(texts[:3]).encode()})
    assert [record.text for record in read("org/texts")[0]] == ["\n".join(texts[:3])]
    # The card says how to read the file: that is left to the library.
    card = b'---\nconfigs:\n- config_name: default\n  data_files: a.csv\n  sep: "|"\n---\n'
    hub.add("org/bars", {"README.md": card, "a.csv": b"text|n\nfirst, text|1\nsecond|2\n"})
    records, kinds, _, fetched, revision = read("org/bars")
    assert [(record.id, record.text) for record in records] == [
        ("mine:1", "first, text"), ("mine:2", "second"),
    ]  # fmt: skip
    assert (kinds, fetched, revision) == ({"batch"}, [], hub.sha("org/bars"))


def test_a_data_set_of_the_hub_is_prepared_with_its_commit_and_hashes(
    datasets_like_the_real_ones, run_script, tmp_path
):
    hub = datasets_like_the_real_ones
    settings = {
        "input_path": "fineweb-edu", "vocab_size": 600, "language_threshold": 0,
        "decontaminate": False, "dataset_name": "edu",
    }  # fmt: skip
    prepare(
        PrepareConfig.build(
            settings | {"output_dir": tmp_path / "out1", "num_workers": 1, "download_workers": 1}
        )
    )
    (tmp_path / "edu.json").write_text(json.dumps(settings))
    done = run_script(
        "01_prepare_data", "--config", tmp_path / "edu.json", "--output_dir", tmp_path / "out3",
        "--num_workers", 3, env=hub.env | {"HF_HOME": str(tmp_path / "hf3")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "http" not in done.stderr
    assert folder_damage(tmp_path / "out3") is None
    assert (tmp_path / "out1/manifest.json").read_bytes() == (
        tmp_path / "out3/manifest.json"
    ).read_bytes()
    manifest = json.loads((tmp_path / "out1" / "sources" / "edu.json").read_text())
    assert manifest["revision"] == hub.sha("HuggingFaceFW/fineweb-edu")
    assert manifest["documents"]["in"] == 200
    assert [(file["name"], file["bytes"]) for file in manifest["files"]] == [
        (path, len(data))
        for path, data in hub.datasets["HuggingFaceFW/fineweb-edu"].items()
        if path.startswith("sample")
    ]
    assert all(len(file["sha256"]) == 64 for file in manifest["files"])
    card = (tmp_path / "out1" / "DATA_CARD.md").read_text()
    assert f"HuggingFaceFW/fineweb-edu (sample-10BT) @ {manifest['revision'][:12]}" in card
