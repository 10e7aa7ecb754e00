import pytest
import torch

from utils.finetuning.training_loop import fastest_step


@pytest.fixture(autouse=True)
def eight_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("seconds", "threads"),
    [
        ({8: 1.0, 4: 1.5}, 8),
        ({8: 1.0, 4: 0.9}, 8),
        ({8: 4.0, 4: 2.0, 2: 3.0}, 4),
        ({8: 9.0, 4: 5.0, 2: 2.0, 1: 1.0}, 1),
    ],
)
def test_fewer_threads_are_taken_as_long_as_they_are_much_faster(seconds, threads):
    asked = []

    def measure():
        asked.append(torch.get_num_threads())
        return seconds[asked[-1]]

    assert fastest_step(measure) == seconds[threads]
    assert torch.get_num_threads() == threads
    assert asked == list(seconds)
