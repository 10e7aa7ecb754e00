"""Another precision is taken where it is exact enough and, as measured, faster."""

from dataclasses import asdict

import pytest
import torch

from utils.machine import precision
from utils.machine.limits import cpu_name
from utils.machine.precision import (
    Gains,
    choose_matmul_precision,
    is_bf16_faster,
    known_gains,
    measured_gains,
    set_matmul_precision,
)

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def as_before():
    """Leave torch's precision and the measurements as they were."""
    before = torch.get_float32_matmul_precision()
    measured_gains.cache_clear()
    yield
    set_matmul_precision(before)
    measured_gains.cache_clear()


def products_take(monkeypatch, **seconds):
    """Let a product take so long: `bf16`, `medium`, `highest`."""

    def product_s(left, right, name):
        return seconds["bf16" if left.dtype == torch.bfloat16 else name]

    monkeypatch.setattr(precision, "_product_s", product_s)


def test_products_keep_the_error_of_fp32():
    assert choose_matmul_precision(CPU) in ("medium", "highest")
    left, right = torch.randn(300, 300), torch.randn(300, 300)
    exact = left.double() @ right.double()
    assert ((left @ right).double() - exact).norm() / exact.norm() < 3e-6


@pytest.mark.parametrize(
    ("seconds", "wanted"), [(0.8, "medium"), (0.9, "highest"), (1.1, "highest")]
)
def test_medium_is_taken_where_it_is_faster(monkeypatch, seconds, wanted):
    products_take(monkeypatch, bf16=1.0, medium=seconds, highest=1.0)
    monkeypatch.setattr(precision, "_error", lambda name: 1e-7)
    assert choose_matmul_precision(CPU) == wanted == torch.get_float32_matmul_precision()
    assert choose_matmul_precision(CPU, fast=False) == "highest"


def test_medium_that_is_really_bf16_is_never_taken(monkeypatch, caplog):
    monkeypatch.setattr(precision, "_error", lambda name: 1e-3)
    with caplog.at_level("INFO"):
        found = choose_matmul_precision(CPU, gains=Gains("", bf16=True, medium=True))
    assert found == "highest" and '"medium" has an error of 1.0e-03' in caplog.text


@pytest.mark.parametrize(("there", "seconds"), [(True, 0.25), (True, 2.0), (False, 0.25)])
def test_bf16_must_be_there_and_faster(monkeypatch, there, seconds):
    products_take(monkeypatch, bf16=seconds, medium=1.0, highest=1.0)
    monkeypatch.setattr(precision, "has_bf16", lambda device: there)
    assert is_bf16_faster(CPU) is (there and seconds < 1)


def test_what_was_measured_on_this_processor_is_kept():
    known = Gains(cpu_name(), bf16=not is_bf16_faster(CPU), medium=True)
    assert known_gains(CPU, asdict(known)) == known


@pytest.mark.parametrize(
    "recorded",
    [
        None, [], "medium", {"processor": 1, "bf16": True, "medium": True},
        {"processor": "Another CPU", "bf16": True, "medium": True}, {"bf16": "no"},
    ],
)  # fmt: skip
def test_another_processor_or_nonsense_is_measured_anew(monkeypatch, recorded):
    products_take(monkeypatch, bf16=1.0, medium=0.5, highest=1.0)
    assert known_gains(CPU, recorded) == Gains(cpu_name(), bf16=False, medium=True)


def test_measuring_changes_no_setting_and_draws_no_number():
    set_matmul_precision("high")
    torch.manual_seed(5)
    expected, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(5)
    assert measured_gains(CPU).processor == cpu_name()
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_float32_matmul_precision() == "high"
