"""Throughput is measured with real steps, or the reason why not is given in time."""

import json

import pytest

from utils.machine.facts import Machine
from utils.planning.sizes import read_size
from utils.planning.throughput import measure, measure_apart

MACHINE = Machine(
    system="Linux", python="3.11", torch="2.13.0+cpu", cpu="Some CPU", cores=1, memory_gb=8.0,
    memory_available_gb=6.0, disk_free_gb=50.0, device="cpu", gpus=(), unused_gpus=(), bf16=False,
    compiler=None,
)  # fmt: skip


@pytest.fixture
def toy(tmp_path):
    shape = {"n_layer": 1, "d_model": 32, "n_head": 2, "d_ff": 64, "vocab_size": 300,
             "sequence_length": 64}  # fmt: skip
    (tmp_path / "toy.json").write_text(json.dumps(shape))
    return read_size(tmp_path / "toy.json")


def test_a_small_model_has_a_rate(toy):
    found = measure(toy, MACHINE, 1e11, 30)
    assert found.tokens_per_s > 100
    assert found.note == "64 x 64 tokens a step, not compiled"


def test_a_model_too_large_for_the_memory_is_skipped(root):
    found = measure(read_size(root / "config/base.json"), MACHINE, 1e15, 30)
    assert found.tokens_per_s is None
    assert found.note == "skipped: needs 9.5 GB"


def test_a_model_too_slow_for_the_limit_is_skipped(root):
    found = measure(read_size(root / "config/small.json"), MACHINE, 1e9, 30)
    assert found.tokens_per_s is None
    assert "over the limit of 30 s" in found.note


def test_the_limit_holds_whatever_happens(toy):
    found = measure_apart(toy, MACHINE, 1e11, 0.5)
    assert found.note == "skipped: no step done within 0.5 s"
