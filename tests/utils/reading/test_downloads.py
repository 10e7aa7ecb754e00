"""Files arrive whole and in order, whatever the connection does, and none of them twice."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import pytest

from utils.errors import DataError, Interrupted
from utils.reading import downloads
from utils.reading.downloads import Downloads
from utils.reading.hub import HubSet, list_files
from utils.stage import stop_request

SET = HubSet("org/set", None, "train")
MIB = 1 << 20


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE_S", 0.01)


@pytest.fixture
def files(hub):
    """Six files, one of them small, one of 3 MiB."""
    chance = random.Random(5)
    sizes = [40_000, 3 * MIB, 600, 90_000, 80_000, 50_000]
    hub.add("org/set", {f"data/{n}.txt": chance.randbytes(size) for n, size in enumerate(sizes)})
    return list_files(SET).files


def _fetch(files, workers=3):
    with Downloads(files, workers, len(files)) as found:
        return [(file, path.read_bytes()) for file, path in found]


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_files_come_whole_in_order_and_only_once(hub, files, workers):
    wanted = list(hub.datasets["org/set"].items())
    assert [(file.path, data) for file, data in _fetch(files, workers)] == wanted
    assert sum(hub.sent.values()) == sum(len(data) for _, data in wanted)
    hub.ranges.clear()
    assert [data for _, data in _fetch(files, workers)] == [data for _, data in wanted]
    assert not hub.ranges


def test_the_library_finds_the_same_files_in_its_cache(hub, files):
    from huggingface_hub import hf_hub_download, snapshot_download

    _fetch(files)
    hub.ranges.clear()
    folder = snapshot_download(SET.place, repo_type="dataset", revision=files[0].revision)
    for file in files:
        path = hf_hub_download(
            SET.place, file.path, repo_type="dataset", revision=file.revision, local_files_only=True
        )
        assert path == f"{folder}/{file.path}"
    assert not hub.ranges


def test_a_broken_connection_is_gone_on_with(hub, files):
    hub.cut_after["data/1.txt"] = [MIB + 5000, MIB + 7000]
    hub.cut_after["data/3.txt"] = [100]
    hub.status["data/4.txt"] = [503, 429]
    assert dict(hub.datasets["org/set"]) == {file.path: data for file, data in _fetch(files)}
    assert [start for path, start in hub.ranges if path == "data/1.txt"] == [0, MIB, 2 * MIB]


def test_a_file_that_cannot_be_had_is_one_line_and_a_later_run_goes_on(hub, files):
    hub.cut_after["data/1.txt"] = [MIB + 1] + [0] * 20
    with pytest.raises(
        DataError, match=r"1.txt broke off at 1.0 of 3.1 MB .* run it again"
    ) as error:
        _fetch(files)
    assert "\n" not in str(error.value)
    hub.cut_after.clear()
    hub.ranges.clear()
    assert [data for _, data in _fetch(files)] == list(hub.datasets["org/set"].values())
    assert ("data/1.txt", MIB) in hub.ranges
    assert not {("data/0.txt", 0), ("data/2.txt", 0)} & set(hub.ranges)
    assert not list(files[1].blob.parent.glob("*.incomplete"))


def test_other_bytes_than_promised_are_refused_and_fetched_anew(hub, files):
    files[1].partial.parent.mkdir(parents=True, exist_ok=True)
    files[1].partial.write_bytes(b"\0" * MIB)
    with pytest.raises(DataError, match=r"1\.txt of org/set arrived with other bytes"):
        _fetch(files)
    assert len(_fetch(files)) == 6


def test_a_part_that_is_too_long_and_a_cut_file_are_made_again(hub, files):
    _fetch(files)
    os.truncate(files[0].blob, 1000)
    files[3].blob.unlink()
    files[3].partial.write_bytes(b"\0" * 100_000)
    assert [data for _, data in _fetch(files)] == list(hub.datasets["org/set"].values())


def test_no_more_than_the_wanted_files_are_begun(hub, files):
    with Downloads(files, 3, 1) as found:
        for number, (file, _) in enumerate(found, start=1):
            assert file == files[number - 1]
            if number == 2:
                break
    assert set(hub.sent) == {"data/0.txt", "data/1.txt"}


def test_a_stop_request_ends_it(hub, files, monkeypatch):
    monkeypatch.setattr(stop_request, "signal_number", 15)
    with pytest.raises(Interrupted):
        _fetch(files)
    assert not hub.sent["data/1.txt"] or not files[1].blob.exists()


def test_a_disk_that_is_too_small_is_told_before(files, monkeypatch):
    usage = type("Usage", (), {"free": 2 * MIB})
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda place: usage)
    with pytest.raises(DataError, match=r"no space for data/1.txt .* 3 MB needed, 2 MB free: free"):
        _fetch(files)


FETCH = """
import json, sys
from utils.reading.downloads import Downloads, RemoteFile

files = tuple(RemoteFile(**file) for file in json.loads(sys.argv[1]))
with Downloads(files, 2, len(files)) as found:
    print(len(list(found)))
"""


def test_after_a_kill_only_what_is_missing_is_fetched(hub, files, root):
    hub.hold_after["data/1.txt"] = 2 * MIB + 70_000
    command = [sys.executable, "-c", FETCH, json.dumps([asdict(file) for file in files])]
    process = subprocess.Popen(command, cwd=root, env=os.environ | hub.env)
    assert hub.held.wait(60)
    while not files[0].blob.exists() or downloads._size(files[1].partial) < 2 * MIB:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    hub.released.set()
    done = {path for path, _ in hub.ranges} - {"data/1.txt"}
    assert "data/0.txt" in done
    hub.ranges.clear()
    assert [data for _, data in _fetch(files)] == list(hub.datasets["org/set"].values())
    assert ("data/1.txt", 2 * MIB) in hub.ranges and ("data/0.txt", 0) not in hub.ranges
