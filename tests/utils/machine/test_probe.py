import pytest

from utils.machine import probe
from utils.machine.probe import cpu_slowdown, measure_machine


def test_the_slowdown_is_bounded():
    best, now = cpu_slowdown()
    assert 0.25 <= best <= now <= 8


def test_a_moment_in_which_others_compute_does_not_count_against_the_machine(monkeypatch):
    looks = iter([(3.0, 4.0), (1.5, 1.5), (3.0, 3.5)])
    monkeypatch.setattr(probe, "LOOKS", 3)
    monkeypatch.setattr(probe, "_slowdown", lambda: next(looks))
    assert cpu_slowdown() == (1.5, 3.0)


@pytest.mark.slow
def test_this_machine_is_measured():
    speed = measure_machine()
    assert speed.device in ("cpu", "cuda", "mps")
    assert speed.flops > 1e9
    assert speed.import_s > 0.1
    assert speed.machine["cores"] >= 1
