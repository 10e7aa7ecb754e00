import json

import pyarrow
import pyarrow.parquet
import pytest

from utils.errors import DataError
from utils.evaluation.benchmark_files import BOOLQ, LAMBADA, WIKITEXT, benchmark_rows, read_rows


def test_the_public_files_are_read_as_they_are(shared_data):
    lambada = benchmark_rows(LAMBADA, shared_data / "eval")
    assert (len(lambada.rows), lambada.origin) == (5153, "lambada/lambada_test.jsonl")
    assert len(benchmark_rows(BOOLQ, shared_data / "eval").rows) == 3270
    assert len(benchmark_rows(WIKITEXT, shared_data / "eval").rows) == 1


def test_other_common_names_and_parquet_are_found(tmp_path):
    (tmp_path / "boolq").mkdir()
    table = pyarrow.table({"passage": ["p"], "question": ["q"], "label": [1]})
    pyarrow.parquet.write_table(table, tmp_path / "boolq/validation-00000-of-00001.parquet")
    assert benchmark_rows(BOOLQ, tmp_path).rows == [{"passage": "p", "question": "q", "label": 1}]
    (tmp_path / "lambada.jsonl").write_text('{"text": "a b"}\n', encoding="utf-8")
    assert benchmark_rows(LAMBADA, tmp_path).origin == "lambada.jsonl"


def test_without_file_and_hub_the_reason_has_the_remedy(tmp_path):
    with pytest.raises(DataError) as caught:
        benchmark_rows(LAMBADA, tmp_path)
    message = str(caught.value)
    assert "has no lambada/lambada_test.jsonl and the hub cannot be reached" in message
    assert "--data_dir" in message
    assert "\n" not in message


def test_a_broken_line_is_named_with_its_place(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n\n{"text": \n', encoding="utf-8")
    with pytest.raises(DataError, match=r"rows\.jsonl:3:"):
        read_rows(path)


def test_rows_of_another_benchmark_are_refused(tmp_path):
    (tmp_path / "lambada.jsonl").write_text('{"question": "a"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="row 1 of LAMBADA has no text"):
        benchmark_rows(LAMBADA, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"), [("[]", "no rows"), ("[1]", "rows.json:1: not an object")]
)
def test_arrays_are_read_and_checked(tmp_path, content, message):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"a": 1}], indent=1), encoding="utf-8")
    assert read_rows(path) == [{"a": 1}]
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_rows(path)
