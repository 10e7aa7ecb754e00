"""Facts about a machine, with the limits of a container."""

import subprocess
import sys

import psutil

from utils.machine.facts import describe_machine, find_compiler
from utils.machine.limits import usable_cores


def test_this_machine_is_described():
    machine = describe_machine(cpu=True)
    assert machine.cores == usable_cores() >= 1
    assert 0.1 < machine.memory_available_gb <= machine.memory_gb
    assert machine.memory_gb <= psutil.virtual_memory().total / 1e9 + 1e-6
    assert machine.disk_free_gb > 0
    assert machine.cpu
    assert machine.device == "cpu"
    assert machine.gpus == ()
    assert machine.torch.startswith("2.")
    assert machine.as_json()["cores"] == machine.cores


def test_importing_it_does_not_import_torch():
    code = "import sys, utils.machine.facts; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_compiler_is_found_on_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert find_compiler() is None
    (tmp_path / "clang++").write_text("#!/bin/sh\n")
    (tmp_path / "clang++").chmod(0o755)
    assert find_compiler() == str(tmp_path / "clang++")
