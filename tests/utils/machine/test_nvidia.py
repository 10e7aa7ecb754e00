"""Cards as a stand-in for NVIDIA's library tells them, and nothing where there is no driver."""

from types import SimpleNamespace

import pytest

from utils.machine import nvidia
from utils.machine.nvidia import cards, energy_reader


class Library:
    """A driver with a card that tells all, a MIG slice that tells little, and one that is lost."""

    NVMLError, NVML_TEMPERATURE_GPU, nvmlMemory_v2 = type("NVMLError", (Exception,), {}), 0, 2
    joules = 7.0

    def nvmlInit(self):
        pass

    def nvmlDeviceGetCount(self):
        return 3

    def nvmlDeviceGetHandleByIndex(self, number):
        return self._only(number, [0, 1])

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return self._only({"GPU-a": 0, "GPU-old": 1}.get(uuid), [0, 1])

    def nvmlDeviceGetName(self, handle):
        return ("NVIDIA H200", "NVIDIA H200 MIG")[handle]

    def nvmlDeviceGetMemoryInfo(self, handle, version):
        return SimpleNamespace(total=150_000_000_000, used=4_000_000_000)

    def nvmlDeviceGetUtilizationRates(self, handle):
        return SimpleNamespace(gpu=self._only(handle, [0]) + 97)

    def nvmlDeviceGetTemperature(self, handle, kind):
        return self._only(handle, [0]) + 41

    def nvmlDeviceGetPowerUsage(self, handle):
        return self._only(handle, [0]) + 612_400

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        self.joules += 3600.0
        return 1000 * self.joules + self._only(handle, [0])

    def _only(self, value, allowed):
        if value not in allowed:
            raise self.NVMLError
        return value


@pytest.fixture
def library(monkeypatch):
    library = Library()
    monkeypatch.setattr(nvidia, "pynvml", library)
    nvidia._has_driver.cache_clear()
    yield library
    nvidia._has_driver.cache_clear()


def test_cards_tell_what_they_do(library):
    assert cards() == [
        nvidia.Card("NVIDIA H200", 150_000_000_000, 4_000_000_000, 97, 41, 612_400),
        nvidia.Card("NVIDIA H200 MIG", 150_000_000_000, 4_000_000_000, None, None, None),
    ]


def test_energy_is_counted_where_the_card_does(library):
    read = energy_reader("GPU-a")
    assert read is not None and read() + 3600 == read()
    assert energy_reader("GPU-old") is None and energy_reader("GPU-none") is None
    library.nvmlDeviceGetTotalEnergyConsumption = lambda handle: library._only(1, [])
    with pytest.raises(OSError, match="energy"):
        read()


def test_without_a_driver_there_are_no_cards(library):
    library.nvmlInit = lambda: library._only(1, [])
    assert cards() == [] and energy_reader("GPU-a") is None


def test_the_library_has_what_is_asked_of_it():
    import pynvml

    asked = [name for name in vars(Library) if name.startswith("nvml")] + ["NVML_TEMPERATURE_GPU"]
    assert all(hasattr(pynvml, name) for name in asked) and issubclass(pynvml.NVMLError, Exception)
