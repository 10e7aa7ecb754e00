import pytest

from utils.session.probe import cpu_slowdown, measure_machine


def test_the_slowdown_is_bounded():
    cpu, wall = cpu_slowdown()
    assert 0.25 <= cpu <= wall <= 8


@pytest.mark.slow
def test_this_machine_is_measured():
    speed = measure_machine()
    assert speed.device in ("cpu", "cuda", "mps")
    assert speed.flops > 1e9
    assert speed.import_s > 0.1
    assert speed.machine["cores"] >= 1
