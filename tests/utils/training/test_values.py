"""Numbers of steps come back exactly, in order, and on a GPU without waiting for it."""

import math

import pytest
import torch

from utils.training.values import StepValues

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
CPU = torch.device("cpu")


def test_on_a_cpu_the_numbers_of_a_step_are_there_at_once():
    values = StepValues(CPU)
    values.add(1, loss=torch.tensor(2.5), norm=torch.tensor(0.1, requires_grad=True))
    assert list(values.read()) == [(1, {"loss": 2.5, "norm": torch.tensor(0.1).item()})]
    assert list(values.read()) == [] == list(values.read(drain=True))


def test_a_number_changed_later_is_told_as_it_was():
    values, loss = StepValues(CPU), torch.tensor(1.0)
    values.add(1, loss=loss)
    loss += 1
    values.add(2, loss=loss)
    assert list(values.read()) == [(1, {"loss": 1.0}), (2, {"loss": 2.0})]


def test_what_is_not_a_number_arrives():
    values = StepValues(CPU)
    values.add(3, loss=torch.tensor(math.nan), norm=torch.tensor(math.inf))
    ((step, numbers),) = values.read()
    assert step == 3 and math.isnan(numbers["loss"]) and numbers["norm"] == math.inf


def test_steps_in_flight_are_held_back_until_drained():
    values = StepValues(CPU)
    values.lag = 2
    for step in range(1, 5):
        values.add(step, loss=torch.tensor(float(step)))
    assert [step for step, _ in values.read()] == [1, 2]
    assert [step for step, _ in values.read(drain=True)] == [3, 4]


@needs_cuda
def test_on_a_gpu_nothing_waits_until_the_numbers_are_drained():
    device = torch.device("cuda")
    values, loss = StepValues(device), torch.zeros((), device=device)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(1, 4):
            loss = loss + step
            values.add(step, loss=loss)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [numbers["loss"] for _, numbers in values.read()] == [1.0, 3.0]
    assert [numbers["loss"] for _, numbers in values.read(drain=True)] == [6.0]
