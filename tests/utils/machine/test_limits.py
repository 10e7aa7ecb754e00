"""Cores and memory, with the limits of a container."""

import os
import subprocess
import sys

import pytest

from utils.machine.limits import (
    cgroup_cores,
    cgroup_memory,
    memory_bytes,
    output_of,
)


def write(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000\n", None), ("150000 100000\n", 1.5), ("50000 100000\n", 0.5)]
)
def test_cpu_quota_of_a_container(tmp_path, text, cores):
    assert cgroup_cores(write(tmp_path, cpu_dot_max=text)) == cores


def test_cpu_quota_of_an_old_container(tmp_path):
    quota = {"cpu__cpu_dot_cfs_quota_us": "400000\n", "cpu__cpu_dot_cfs_period_us": "100000\n"}
    assert cgroup_cores(write(tmp_path, **quota)) == 4.0
    quota["cpu__cpu_dot_cfs_quota_us"] = "-1\n"
    assert cgroup_cores(write(tmp_path, **quota)) is None


def test_no_container_means_no_limit(tmp_path):
    assert cgroup_cores(tmp_path) is None
    assert cgroup_memory(tmp_path) == (None, 0)


def test_memory_limit_of_a_container_without_its_file_cache(tmp_path):
    write(
        tmp_path,
        memory_dot_max="2000000000\n",
        memory_dot_current="1500000000\n",
        memory_dot_stat="anon 400\ninactive_file 600000000\nactive_file 3\n",
    )
    assert cgroup_memory(tmp_path) == (2_000_000_000, 900_000_000)
    write(tmp_path, memory_dot_max="max\n")
    assert cgroup_memory(tmp_path) == (None, 0)


def test_a_small_container_is_the_machine(tmp_path, monkeypatch):
    write(tmp_path, memory_dot_max="300000000\n", memory_dot_current="100000000\n")
    monkeypatch.setattr("utils.machine.limits.CGROUP", tmp_path)
    assert memory_bytes() == (300_000_000, 200_000_000)


def test_affinity_counts():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("no affinity on this system")
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from utils.machine.limits import usable_cores\nassert usable_cores() == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_or_failing_command_has_no_output():
    assert output_of("no-such-command-here") == ""
    assert output_of("false") == ""
    assert output_of("echo", "hello") == "hello"
