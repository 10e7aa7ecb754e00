import json

import pytest

from utils.data.builtin.installed import SourceFile, compiled_records, find_sources
from utils.data.builtin.pydocs import cache_key, extract, pydocs_documents, pydocs_records
from utils.errors import DataError

ONLY = ("json", "textwrap", "builtins")


def test_documents_begin_with_name_and_signature_and_carry_no_path(tmp_path):
    documents = {item["id"]: item for item in pydocs_documents(tmp_path / "pydocs", ONLY, 1)}
    dumps = documents["json.dumps"]
    assert dumps["text"].startswith("json.dumps(obj, *, skipkeys=False, ")
    assert "Serialize ``obj`` to a JSON formatted ``str``." in dumps["text"]
    assert dumps["source"] == "python"
    assert list(documents) == sorted(documents)
    assert all(set(item) == {"id", "text", "source"} for item in documents.values())
    assert not any("/root" in item["text"] for item in documents.values())


def test_the_number_of_processes_does_not_change_the_records(tmp_path):
    one = list(pydocs_records(tmp_path / "one", ("json", "email", "logging"), 1))
    two = list(pydocs_records(tmp_path / "two", ("json", "email", "logging"), 2))
    assert one == two
    assert (tmp_path / "one" / "records.jsonl").read_bytes() == (
        tmp_path / "two" / "records.jsonl"
    ).read_bytes()


def test_a_second_call_reads_the_cache_and_a_damaged_one_is_made_again(tmp_path):
    cache = tmp_path / "pydocs"
    first = list(pydocs_records(cache, ("json",), 1))
    made = (cache / "records.jsonl").stat().st_mtime_ns
    assert list(pydocs_records(cache, ("json",), 1)) == first
    assert (cache / "records.jsonl").stat().st_mtime_ns == made
    (cache / "records.jsonl").write_text("{}")
    assert list(pydocs_records(cache, ("json",), 1)) == first


def test_another_choice_of_modules_has_another_key(tmp_path):
    assert cache_key(("json",)) != cache_key(("json", "email"))
    assert cache_key(("json", "email")) == cache_key(("email", "json"))
    list(pydocs_records(tmp_path / "pydocs", ("json",), 1))
    names = {record.name for record in pydocs_records(tmp_path / "pydocs", ("textwrap",), 1)}
    assert "textwrap.dedent" in names
    assert "json.dumps" not in names


def test_broken_and_missing_files_are_counted_and_skipped(tmp_path):
    files = {"good": b'"""A module that can be read."""', "bad": b"def f(:", "gone": None}
    for name, code in files.items():
        if code is not None:
            (tmp_path / f"{name}.py").write_bytes(code)
    sources = [SourceFile(tmp_path / f"{name}.py", name, "pkg") for name in files]
    records, unreadable = extract(sources, num_workers=1)
    assert [record.name for record in records] == ["good"]
    assert unreadable == 2


def test_nothing_found_is_one_line_with_the_remedy(tmp_path):
    with pytest.raises(DataError, match=r"no docstring found in 0 Python files.*make install"):
        list(pydocs_records(tmp_path / "pydocs", ("no_such_module",), 1))
    assert not (tmp_path / "pydocs").exists()


def test_sources_are_importable_modules_without_tests_and_vendored_copies():
    sources = find_sources()
    modules = {source.module for source in sources}
    assert {"json", "json.decoder", "numpy", "torch.nn.functional"} <= modules
    assert not any(module.startswith(("test.", "idlelib", "pip._vendor")) for module in modules)
    assert {s.source for s in sources if s.module == "yaml"} == {"PyYAML"}


def test_compiled_modules_document_builtins_and_their_methods():
    found = {record.name: record for record in compiled_records("builtins")}
    assert found["builtins.len"].text == (
        "builtins.len(obj)\n\nReturn the number of items in a container."
    )
    assert found["builtins.dict.get"].signature == "(key, default=None)"


def test_equal_docstrings_are_kept_once(tmp_path):
    docs = [record.doc for record in pydocs_records(tmp_path / "pydocs", ("json", "email"), 1)]
    assert len(docs) == len(set(docs))


def test_records_are_one_json_object_a_line(tmp_path):
    list(pydocs_records(tmp_path / "pydocs", ("textwrap",), 1))
    lines = (tmp_path / "pydocs" / "records.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(
        set(json.loads(line)) == {"name", "kind", "signature", "doc", "source"} for line in lines
    )
