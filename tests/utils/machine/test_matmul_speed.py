"""The measured rate is a rate; cards are known by the names their driver gives."""

import pytest

from utils.machine.matmul_speed import (
    DATASHEET_TFLOPS,
    Peak,
    datasheet_flops,
    device_peak,
    gemm_rate,
)


def test_the_rate_is_that_of_a_processor():
    rate, precision = gemm_rate("cpu", 0.1)
    assert 1e8 < rate < 1e15
    assert precision in ("bfloat16", "float32")


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H200", 989.4),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", 88.2),
        ("NVIDIA GeForce RTX 4070 SUPER", 71.0),
        ("NVIDIA GeForce RTX 3060 Ti", 32.4),
        ("NVIDIA GeForce RTX 3060", 25.5),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L4", 121.0),
    ],
)
def test_a_known_card_has_the_rate_of_its_data_sheet(name, tflops):
    assert datasheet_flops(name) == tflops * 1e12


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA GeForce GTX 1080",
        "Quadro RTX 40905",
    ],
)
def test_other_cards_are_measured(name):
    assert datasheet_flops(name) is None


def test_no_name_hides_behind_a_shorter_one():
    cards = list(DATASHEET_TFLOPS)
    for card in cards:
        assert datasheet_flops(f"NVIDIA {card}") == DATASHEET_TFLOPS[card] * 1e12, card


def test_measuring_draws_nothing_from_the_generator_of_the_run():
    import torch

    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert device_peak("cpu", 0.02).source.startswith("measured product in ")
    assert torch.equal(before, torch.get_rng_state())


def test_a_peak_that_was_measured_too_low_is_measured_again():
    peak = Peak("cpu", 1.0, "measured product in float32")
    assert peak.share(1e6) < 0.1 and peak.flops > 1e8  # any machine multiplies faster than that
    assert peak.facts()["peak_tflops"] == round(peak.flops / 1e12, 3)


def test_more_than_all_of_the_peak_is_not_known_and_stays_so(caplog):
    peak = Peak("cpu", 1e12, "data sheet of Card, dense bf16", looks_left=0)
    assert peak.share(1e12) == 1.0
    assert peak.share(1.53e12) is None and peak.share(0.9e12) is None
    assert peak.facts() == {"peak_tflops": None, "peak_source": "data sheet of Card, dense bf16"}
    assert caplog.text.count("MFU is not known: 1.53 TFLOP/s exceed the peak of 1 ") == 1
