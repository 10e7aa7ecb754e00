"""Eleven lines about a machine, and an error where nothing can be trained."""

from dataclasses import replace

import pytest

from utils.errors import BudgetError
from utils.machine.facts import Gpu, Machine
from utils.planning.check_env import require_enough, size_line
from utils.planning.sizes import read_size
from utils.planning.table import compute_line, machine_lines

LAPTOP = Machine(
    system="Linux", python="3.11.7", torch="2.13.0+cpu", cpu="Some CPU", cores=4, memory_gb=8.0,
    memory_available_gb=6.0, disk_free_gb=50.0, device="cpu", gpus=(), unused_gpus=(), bf16=True,
    compiler="/usr/bin/g++",
)  # fmt: skip


def test_the_command_writes_eleven_lines(run_module, root):
    result = run_module(
        "utils.planning.check_env", "--config_dir", root / "config", "--measure_seconds", 0.1
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 11
    assert [line.split()[0] for line in lines[:3]] == ["system", "CPU", "memory"]
    assert [line.split()[0] for line in lines[-4:]] == ["nano", "tiny", "small", "base"]
    assert "14.7M parameters" in lines[8]


@pytest.mark.parametrize(
    ("there", "faster", "said"),
    [
        (True, True, "bf16 in hardware"),
        (True, False, "bf16 in hardware, but slower: fp32 is used"),
        (False, False, "no bf16 in hardware: fp32 is used"),
    ],
)
def test_the_precision_told_is_that_of_training(monkeypatch, there, faster, said):
    monkeypatch.setattr("utils.machine.precision.is_bf16_faster", lambda device: faster)
    line = compute_line(replace(LAPTOP, bf16=there), 9e10, "fp32")
    assert line == ("compute", f"90 GFLOP/s in fp32 measured on cpu, {said}")


def test_time_follows_from_flops(root):
    tiny = read_size(root / "config/tiny.json")
    # 6 x (6 x (4 x 256^2 + 3 x 256 x 1024) + 32768 x 256) + 6 x 6 x 256 x 1024 operations a token,
    # half of 1 TFLOP/s: 5,110 tokens/s.
    _, text = size_line(tiny, LAPTOP, 1e12)
    assert "1M tokens in about 3.3 min, 9.2M in 30 min" in text


def test_a_size_that_does_not_fit_says_what_it_needs(root):
    _, text = size_line(read_size(root / "config/base.json"), LAPTOP, 1e12)
    assert "does not fit (9.5 GB needed, 6.0 free)" in text


def test_a_card_that_torch_cannot_use_is_named():
    machine = replace(LAPTOP, unused_gpus=(Gpu("NVIDIA GeForce RTX 4090", 25.8),))
    gpu = dict(machine_lines(machine))["GPU"]
    assert "RTX 4090 is there, but torch 2.13.0+cpu cannot use it" in gpu


def test_too_little_memory_or_disk_is_an_error(root):
    tiny = read_size(root / "config/tiny.json")
    require_enough(tiny, LAPTOP)
    with pytest.raises(BudgetError, match="free memory is too little for tiny"):
        require_enough(tiny, replace(LAPTOP, memory_available_gb=0.3))
    with pytest.raises(BudgetError, match="free disk"):
        require_enough(tiny, replace(LAPTOP, disk_free_gb=0.2))
