"""Memory as the system tells it; energy from counters that wrap, and from a driver."""

from types import SimpleNamespace

import pytest
import torch

from utils.machine import energy as usage
from utils.machine.energy import (
    Counter,
    EnergyMeter,
    memory_bytes,
    nvml_counters,
    peak_memory_bytes,
    rapl_counters,
)

CPU = torch.device("cpu")


def test_memory_grows_by_what_is_held_and_the_peak_stays():
    before = memory_bytes(CPU)
    held = torch.ones(30_000_000)  # 120 MB, touched
    grown = memory_bytes(CPU) - before
    assert 100e6 < grown < 200e6
    assert peak_memory_bytes(CPU) >= memory_bytes(CPU)
    del held
    assert peak_memory_bytes(CPU) > before + 100e6


def zone(powercap, number, name, energy_uj, range_uj=1_000_000_000):
    folder = powercap / f"intel-rapl:{number}"
    folder.mkdir(parents=True)
    for file, text in (
        ("name", name),
        ("energy_uj", energy_uj),
        ("max_energy_range_uj", range_uj),
    ):
        (folder / file).write_text(f"{text}\n")
    return folder / "energy_uj"


def test_packages_and_memory_are_added_and_a_counter_may_begin_again(tmp_path):
    package = zone(tmp_path, "0", "package-0", 900_000_000)
    memory = zone(tmp_path, "0:1", "dram", 5_000_000)
    zone(tmp_path, "0:0", "core", 1)  # part of the package
    meter = EnergyMeter(CPU, powercap=tmp_path)
    assert meter.source == "RAPL" and meter.watt_hours() == 0
    package.write_text("100000000\n")  # 900 -> 1000 = 0 -> 100 J: 200 J
    memory.write_text("165000000\n")  # 160 J
    assert meter.watt_hours() == pytest.approx(360 / 3600)
    package.write_text("460000000\n")
    assert meter.watt_hours() == pytest.approx(720 / 3600)


def test_what_cannot_be_read_is_not_measured(tmp_path, caplog):
    assert rapl_counters(tmp_path / "nothing") == []
    meter = EnergyMeter(CPU, powercap=tmp_path)
    assert meter.source is None and meter.watt_hours() is None
    energy = zone(tmp_path, "0", "package-0", 5)
    meter = EnergyMeter(CPU, powercap=tmp_path)
    energy.unlink()
    assert meter.watt_hours() is None and meter.source is None


def test_a_counter_counts_from_where_it_was():
    values = iter([50.0, 50.0, 80.0])
    counter = Counter(lambda: next(values))
    for _ in range(2):
        counter.poll()
    assert counter.joules == 30.0


def test_the_cards_that_count_are_added(tmp_path, monkeypatch):
    class Properties:
        def __init__(self, number):
            self.uuid = "ab"[number]

    values = iter([7.0, 3607.0, 7207.0])
    readers = {"GPU-a": lambda: next(values)}  # the second card does not count
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", Properties)
    monkeypatch.setattr(usage, "energy_reader", readers.get)
    meter = EnergyMeter(torch.device("cuda"), 8, powercap=tmp_path)
    assert meter.source == "NVML (1 GPU)"
    assert meter.watt_hours() == pytest.approx(1.0) and meter.watt_hours() == pytest.approx(2.0)


def test_without_a_driver_nothing_is_counted(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda n: SimpleNamespace(uuid="none"))
    assert nvml_counters(1) == []
