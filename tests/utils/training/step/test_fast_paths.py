"""What is switched on, and what is said when it is not."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from utils.config.model import ModelConfig
from utils.config.pretrain import PretrainConfig
from utils.machine import precision
from utils.machine.child_process import FAST_MALLOC, child_environment
from utils.machine.limits import cpu_name
from utils.machine.precision import Gains
from utils.model.architecture import build_model
from utils.training.step import fast_paths as speed
from utils.training.step.fast_paths import (
    can_compile,
    choose_fast_paths,
    compile_decoder,
)
from utils.training.step.loss import LossKernel, language_model_loss

CPU = torch.device("cpu")


def test_without_a_compiler_training_is_eager_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr(speed, "find_compiler", lambda: None)
    assert not can_compile(wanted=True, left_s=None, startup_s=1.0)
    assert "no C++ compiler" in caplog.text


def gains_are(monkeypatch, *, there=True, bf16=False, medium=False):
    """Let the processor have these gains, whatever was recorded."""
    gains = Gains("Some CPU", bf16=bf16, medium=medium)
    monkeypatch.setattr(speed, "has_bf16", lambda device: there)
    monkeypatch.setattr(speed, "known_gains", lambda device, recorded: gains)
    monkeypatch.setattr(precision, "set_matmul_precision", lambda name: name)


@pytest.fixture
def no_probe(monkeypatch):
    gains_are(monkeypatch)


@pytest.mark.parametrize(
    ("there", "faster", "said"),
    [(True, True, ""), (True, False, "slower than fp32"), (False, False, "not in this hardware")],
)
def test_bf16_is_taken_where_it_is_faster(monkeypatch, caplog, there, faster, said):
    gains_are(monkeypatch, there=there, bf16=faster)
    with caplog.at_level("INFO"):
        paths = choose_fast_paths(CPU, "sdpa", PretrainConfig()).as_dict()
    assert said in caplog.text
    assert paths["bf16"] is faster
    assert paths["muon_precision"] == ("bf16" if faster else "fp32")
    assert choose_fast_paths(CPU, "sdpa", PretrainConfig(bf16=False)).bf16 is False


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("gain", [True, False])
def test_a_run_that_goes_on_keeps_what_was_measured_for_it(monkeypatch, bf16, gain):
    """What is recorded goes through JSON and decides, whatever would be measured now."""
    monkeypatch.setattr(precision, "set_matmul_precision", lambda name: name)
    monkeypatch.setattr(precision, "_error", lambda name: 1e-7)
    measure = Gains(cpu_name(), bf16=gain, medium=gain)
    monkeypatch.setattr(precision, "measured_gains", lambda device: measure)
    cfg = PretrainConfig(bf16=bf16)
    first = choose_fast_paths(CPU, "sdpa", cfg)
    assert (first.bf16, first.matmul_precision) == (bf16 and gain, "medium" if gain else "highest")
    measure = replace(measure, bf16=not gain, medium=not gain)
    recorded = json.loads(json.dumps(first.bits()))
    assert choose_fast_paths(CPU, "sdpa", cfg, recorded) == first


def test_each_path_can_be_switched_off_and_says_so(no_probe, caplog):
    names = ("chunked_head", "fused_optimizer", "fast_matmul")
    with caplog.at_level("INFO"):
        cfg = PretrainConfig(**dict.fromkeys(names, False), optimizer="muon")
        off = choose_fast_paths(CPU, "sdpa", cfg)
    assert all(name in caplog.text for name in names)
    assert (off.chunked_head, off.fused_optimizer, off.matmul_precision) == (
        False,
        False,
        "highest",
    )
    assert off.muon_precision == "bf16"  # torch's own


def test_the_allocator_is_recorded_but_changes_no_bits(no_probe):
    paths = choose_fast_paths(CPU, "sdpa", PretrainConfig())
    assert set(paths.as_dict()) - set(paths.bits()) == {"malloc"}


def test_the_allocator_settings_of_the_launchers_are_recorded(monkeypatch, no_probe):
    assert set(FAST_MALLOC) == set(speed.MALLOC)
    for name, value in FAST_MALLOC.items():
        monkeypatch.setenv(name, value)
    found = choose_fast_paths(CPU, "sdpa", PretrainConfig()).malloc
    assert found.startswith(
        "GLIBC_TUNABLES=glibc.malloc.hugetlb=1 MALLOC_MMAP_THRESHOLD_=2000000000"
    )
    makefile = (Path(__file__).resolve().parents[4] / "Makefile").read_text(encoding="utf-8")
    assert all(f"{name}={value}" in makefile for name, value in FAST_MALLOC.items())


def test_compiling_needs_time_to_pay(monkeypatch):
    monkeypatch.setattr(speed, "find_compiler", lambda: "c++")
    assert can_compile(wanted=True, left_s=None, startup_s=5.0)
    assert can_compile(wanted=True, left_s=95.0, startup_s=5.0)
    assert not can_compile(wanted=True, left_s=85.0, startup_s=5.0)
    assert not can_compile(wanted=False, left_s=None, startup_s=5.0)


@pytest.mark.parametrize("environ", [{}, child_environment({})], ids=["by hand", "session"])
def test_what_is_compiled_is_kept_in_the_checkout(environ, tmp_path, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", dict(environ))
    can_compile(wanted=True, left_s=None, startup_s=1.0)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(root / ".cache" / "torchinductor")


def test_a_compiler_that_fails_leaves_a_model_that_trains(monkeypatch, caplog):
    def broken(self, *args, **kwargs):
        raise RuntimeError("g++: internal compiler error\n(a second line)")

    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: None)
    model = build_model(ModelConfig(n_layer=1, d_model=16, n_head=2, d_ff=16, vocab_size=64))
    assert not compile_decoder(model, lambda: broken(None))
    assert "training runs uncompiled" in caplog.text and "\n(a second" not in caplog.text
    language_model_loss(model, torch.arange(4, 20)[None]).backward()


@pytest.mark.slow
def test_a_compiled_model_gives_the_loss_and_gradients_of_the_eager_one():
    config = ModelConfig(n_layer=2, d_model=32, n_head=2, d_ff=48, vocab_size=100)
    ids = torch.randint(4, 100, (2, 40))
    eager, compiled = build_model(config), build_model(config)
    language_model_loss(eager, ids).backward()
    try:
        assert compile_decoder(compiled, lambda: language_model_loss(compiled, ids).backward())
    finally:
        LossKernel.eager()
    for left, right in zip(eager.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(left.grad, right.grad, atol=1e-6, rtol=1e-4)
