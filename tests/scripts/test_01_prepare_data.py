"""Stage 01 as a user runs it."""

import json

import pytest


@pytest.fixture
def corpus(tmp_path, texts):
    folder = tmp_path / "texts"
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number:03d}.txt").write_text(text)
    (folder / "broken.jsonl").write_text('{"text": "cut off\n')
    return folder


def test_a_folder_of_texts_becomes_a_data_set(run_script, corpus, tmp_path):
    flags = ("--input_path", corpus, "--vocab_size", 600, "--language", "en", "--max_length", 4000)
    result = run_script("01_prepare_data", *flags)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "data/processed/texts\n"
    assert "Traceback" not in result.stderr
    manifest = json.loads((tmp_path / "data/processed/texts/manifest.json").read_text())
    assert manifest["splits"]["val"]["documents"] > 0
    again = run_script("01_prepare_data", *flags)
    assert again.returncode == 0
    assert "already prepared" in again.stderr


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (("--vocab_sise", 5), 2, "did you mean '--vocab_size'?"),
        (("--input_path", "missing/folder/x"), 1, "input_path missing/folder/x not found"),
        (("--vocab_size", "many"), 1, "vocab_size = 'many'"),
        (
            ("--min_length", 500, "--max_length", 100),
            1,
            "min_length (500) must be below max_length",
        ),
        (("--language", "klingon"), 1, "cannot be detected"),
        (("--reuse_tokenizer",), 1, "reuse_tokenizer needs tokenizer_path"),
        (("--config", "missing.json"), 1, "missing.json"),
    ],
)
def test_a_wrong_setting_is_one_line(run_script, flags, code, message):
    result = run_script("01_prepare_data", *flags)
    assert result.returncode == code
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""
