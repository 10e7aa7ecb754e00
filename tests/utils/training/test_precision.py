"""Another precision is taken where it is exact enough and, as measured, faster."""

import pytest
import torch

from utils.training import precision
from utils.training.precision import (
    choose_matmul_precision,
    has_bf16,
    is_bf16_faster,
    set_matmul_precision,
)

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def as_before():
    """Leave torch's precision and the measurements as they were."""
    before = torch.get_float32_matmul_precision()
    measured = (precision.is_bf16_faster, precision._is_medium_faster)
    for each in measured:
        each.cache_clear()
    yield
    set_matmul_precision(before)
    for each in measured:
        each.cache_clear()


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
    products_take(monkeypatch, medium=seconds, highest=1.0)
    monkeypatch.setattr(precision, "_error", lambda name: 1e-7)
    assert choose_matmul_precision(CPU) == wanted == torch.get_float32_matmul_precision()
    assert choose_matmul_precision(CPU, fast=False) == "highest"
    assert choose_matmul_precision(CPU, earlier="medium") == "medium"
    assert choose_matmul_precision(CPU, earlier="highest") == "highest"


def test_medium_that_is_really_bf16_is_never_taken(monkeypatch, caplog):
    products_take(monkeypatch, medium=0.1, highest=1.0)
    monkeypatch.setattr(precision, "_error", lambda name: 1e-3)
    with caplog.at_level("INFO"):
        assert choose_matmul_precision(CPU, earlier="medium") == "highest"
    assert '"medium" has an error of 1.0e-03' in caplog.text


@pytest.mark.parametrize(("there", "seconds"), [(True, 0.25), (True, 2.0), (False, 0.25)])
def test_bf16_must_be_there_and_faster(monkeypatch, there, seconds):
    products_take(monkeypatch, bf16=seconds, highest=1.0)
    monkeypatch.setattr(precision, "has_bf16", lambda device: there)
    assert is_bf16_faster(CPU) is (there and seconds < 1)


def test_measuring_changes_no_setting_and_draws_no_number():
    assert has_bf16(CPU) in (True, False)
    set_matmul_precision("high")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    assert is_bf16_faster(CPU) in (True, False)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_float32_matmul_precision() == "high"
