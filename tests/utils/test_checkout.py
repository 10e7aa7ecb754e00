"""Where data and models are looked for, and in which order."""

import os

from utils.checkout import CONFIG, ROOT, SCRIPTS, prepared_folders, run_folders


def make(folder, changed_s):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text("{}")
    for path in (folder / "manifest.json", folder):
        os.utime(path, (changed_s, changed_s))


def test_the_checkout_is_the_folder_of_the_code(root):
    assert root == ROOT
    assert (SCRIPTS / "01_prepare_data.py").is_file() and (CONFIG / "tiny.json").is_file()


def test_models_of_later_stages_come_first_and_newer_runs_before_older_ones(tmp_path):
    places = tmp_path / "checkpoints"
    for name, changed_s in (
        ("pretrain/a", 300),
        ("pretrain/b", 500),
        ("pretrain/c", 400),
        ("pretrain/b.20260101-101010", 900),
        ("pretrain/.tmp", 900),
        ("sft", 100),
        ("dpo", 50),
    ):
        make(places / name, changed_s)
    found = [path.relative_to(places).as_posix() for path in run_folders(tmp_path)]
    assert found == ["dpo", "sft", "pretrain", "pretrain/b", "pretrain/c", "pretrain/a"]
    assert run_folders(tmp_path / "empty") == []


def test_the_newest_prepared_folder_comes_first(tmp_path):
    for name, changed_s in (("a", 300), ("b", 500), ("c", 300), (".half", 900)):
        make(tmp_path / name, changed_s)
    (tmp_path / "other").mkdir()
    assert [path.name for path in prepared_folders(tmp_path)] == ["b", "c", "a"]
