"""Atomic files and folders, and what a reader finds after a crash."""

import errno
import json
import os

import pytest

from utils import files
from utils.errors import CheckpointError, DataError, LumiError
from utils.files import (
    append_line,
    atomic_folder,
    folder_damage,
    move_aside,
    read_json,
    read_lines,
    recover_folder,
    verify_folder,
    write_atomic,
    write_json,
)


def make_folder(target, text="hello"):
    with atomic_folder(target, kind="test") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "a.txt").write_text(text)
    return target


def test_a_finished_folder_has_a_manifest_with_size_and_sha256(tmp_path):
    folder = make_folder(tmp_path / "out")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["kind"] == "test"
    assert manifest["files"] == {
        "deep/a.txt": {
            "bytes": 5,
            "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
        }
    }
    assert folder_damage(folder) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_an_error_leaves_the_old_folder_and_no_trace_of_the_new_one(tmp_path):
    folder = make_folder(tmp_path / "out")
    with pytest.raises(ZeroDivisionError), atomic_folder(folder) as partial:
        (partial / "half.txt").write_text("half")
        raise ZeroDivisionError
    assert (folder / "deep" / "a.txt").read_text() == "hello"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.write_text("jello"), "sha256 differs"),
        (lambda path: path.write_text("hello!"), "6 bytes instead of 5"),
        (lambda path: path.unlink(), "missing"),
    ],
)
def test_a_changed_file_is_named(tmp_path, change, message):
    folder = make_folder(tmp_path / "out")
    change(folder / "deep" / "a.txt")
    with pytest.raises(CheckpointError, match=rf"a\.txt: .*{message}|a\.txt: {message}"):
        verify_folder(folder)


def test_a_crash_between_the_two_renames_is_undone(tmp_path):
    folder = make_folder(tmp_path / "out")
    folder.rename(tmp_path / ".old-out")
    (tmp_path / ".tmp-out").mkdir()
    recover_folder(folder)
    assert (folder / "deep" / "a.txt").read_text() == "hello"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_full_disk_is_one_line_and_the_old_content_stays(tmp_path, monkeypatch):
    path = tmp_path / "settings.json"
    write_json(path, {"a": 1})

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(LumiError, match=r"disk full while writing .*settings\.json .*MB free"):
        write_atomic(path, "new")
    assert read_json(path) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["settings.json"]


def test_broken_json_names_line_and_column(tmp_path):
    (tmp_path / "x.json").write_text('{"a": 1,\n "b": }')
    with pytest.raises(DataError, match=r"x\.json:2:7: not valid JSON"):
        read_json(tmp_path / "x.json")


def test_a_torn_last_log_line_is_left_out(tmp_path):
    log = tmp_path / "metrics.jsonl"
    append_line(log, {"step": 1})
    append_line(log, {"step": 2})
    with log.open("a") as file:
        file.write('{"step": 3, "lo')
    assert read_lines(log) == [{"step": 1}, {"step": 2}]


def test_an_earlier_run_is_moved_aside_and_kept(tmp_path):
    run = tmp_path / "sft"
    assert move_aside(run) is None
    run.mkdir()
    assert move_aside(run) is None
    (run / "model").write_text("precious")
    aside = move_aside(run)
    assert aside is not None and (aside / "model").read_text() == "precious"
    assert not run.exists() and aside.name.startswith("sft.")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_one_line(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(LumiError, match="choose another --output_dir"):
        write_atomic(tmp_path / "a", "b")
