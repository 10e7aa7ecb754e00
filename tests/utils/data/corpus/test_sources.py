"""An input is found by what it is: built in, local, or a data set of the hub."""

import json
import zipfile

import pytest

from utils.config.prepare import MixtureSource, PrepareConfig
from utils.data.corpus.sources import ALIASES, find_source, iter_source, source_files
from utils.errors import DataError
from utils.reading.documents import Document


def _source(path, **settings):
    return find_source(MixtureSource(name="src", input_path=str(path), **settings))


@pytest.fixture
def folder(tmp_path):
    """Mixed files, some of them not to be read."""
    root = tmp_path / "texts"
    (root / "sub" / ".git").mkdir(parents=True)
    (root / "b.txt").write_text("text of b")
    (root / "a.md").write_text("text of a")
    (root / "sub" / "c.jsonl").write_text(
        json.dumps({"text": "text of c", "id": "row-1"}) + "\n{\n"
    )
    (root / "sub" / ".git" / "config.txt").write_text("hidden")
    (root / ".hidden.txt").write_text("hidden")
    (root / "picture.png").write_bytes(b"\x89PNG")
    (root / "scan.pdf").write_bytes(b"%PDF")
    (root / "Makefile").write_text("all:")
    return root


def test_a_folder_is_read_in_a_fixed_order_without_hidden_files(folder):
    documents = [record for record in iter_source(_source(folder)) if isinstance(record, Document)]
    assert [(document.id, document.text) for document in documents] == [
        ("a.md", "text of a"), ("b.txt", "text of b"), ("row-1", "text of c"),
    ]  # fmt: skip
    assert {document.source for document in documents} == {"src"}


def test_files_of_other_kinds_are_counted_and_named(folder):
    source = _source(folder)
    assert [skipped.kind for skipped in source.skipped] == ["no suffix", ".png", ".pdf"]


def test_a_folder_without_texts_says_what_it_has(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "b.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"\(2 \.png\): put in files of \.csv"):
        _source(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no file"):
        _source(tmp_path / "empty")


def test_a_result_inside_its_input_is_not_read_again(folder):
    setting = MixtureSource(name="src", input_path=str(folder))
    assert len(find_source(setting, without=folder / "sub").files) == 2


def test_the_home_folder_is_expanded(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert len(_source("~/texts").files) == 3


def test_at_most_the_wanted_number_of_documents_is_read(folder):
    assert len(list(iter_source(_source(folder, max_samples=2)))) == 2


def test_the_fingerprint_depends_on_content_and_names_but_not_on_the_place(folder, tmp_path):
    before = _source(folder).fingerprint()
    folder.rename(tmp_path / "elsewhere")
    moved = tmp_path / "elsewhere"
    assert _source(moved).fingerprint() == before
    (moved / "b.txt").write_text("text of B")
    assert _source(moved).fingerprint() != before


def test_hub_names_and_their_short_forms():
    source = _source("c4")
    assert (source.kind, source.place, source.config) == ("hub", "allenai/c4", "en")
    source = _source("Salesforce/wikitext", input_config="wikitext-2-raw-v1")
    assert (source.place, source.config) == ("Salesforce/wikitext", "wikitext-2-raw-v1")
    assert all("/" in place for place, _ in ALIASES.values())


@pytest.mark.parametrize(
    "path", ["./missing", "data/raw/corpus.txt", "corpus.jsonl", "/a/b/c", "~/x"]
)
def test_a_missing_path_is_not_taken_for_a_hub_name(path):
    with pytest.raises(DataError, match="not found: give a file, a folder, a hub data set"):
        _source(path)


def test_a_hub_that_cannot_be_reached_is_one_line_with_the_way_out():
    with pytest.raises(DataError, match=r"cannot load hub data set .*local files") as error:
        list(iter_source(_source("lumi-tests/no-such-data-set")))
    assert "\n" not in str(error.value)


def test_the_built_in_corpus_is_a_name():
    assert _source("pydocs").kind == "pydocs"


def test_every_shipped_configuration_is_valid_and_names_a_source(root):
    paths = sorted((root / "config" / "datasets").glob("*.json"))
    assert {path.stem for path in paths} >= {
        "pydocs", "demo_tiny", "wikitext103", "wikipedia_en", "openwebtext", "mixture_example",
        "c4", "fineweb", "fineweb_edu",
    }  # fmt: skip
    for path in paths:
        cfg = PrepareConfig.from_cli(["--config", str(path)])
        assert cfg.name == path.stem
        assert {find_source(source).kind for source in cfg.sources} <= {"hub", "pydocs"}


def test_what_is_not_read_in_an_archive_counts_with_what_is_not_read_beside_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("b.txt", "c.png", "d.zip"):
            archive.writestr(name, "text")
    (tmp_path / "e.png").write_bytes(b"x")
    for place, skipped in (
        (tmp_path, {".png": 2, ".zip": 1}),
        (tmp_path / "a.zip", {".png": 1, ".zip": 1}),
    ):
        source = find_source(MixtureSource(name="x", input_path=str(place)))
        assert source_files([source]) == {"read": 1, "skipped": skipped}
        assert [record.text for record in iter_source(source)] == ["text"]
