"""Batched Muon against the singular value decomposition and against torch's Muon."""

import pytest
import torch
from torch.optim import Muon

from utils.training.step import muon
from utils.training.step.muon import BatchedMuon, orthogonalized

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
SHAPES = [(8, 8), (8, 24), (24, 8), (8, 8), (24, 8)]
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def matrices(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator) for shape in SHAPES]


def stepped(steps=3, dtype=None, **options):
    """Parameters and optimizer after some steps of ours in `dtype`, or of torch's (None)."""
    parameters = [torch.nn.Parameter(matrix) for matrix in matrices(0)]
    options = dict(lr=0.02, momentum=0.95, weight_decay=0.1) | options
    kind = Muon if dtype is None else BatchedMuon
    optimizer = kind(parameters, **options, **({} if dtype is None else {"dtype": dtype}))
    for step in range(steps):
        for parameter, gradient in zip(parameters, matrices(step + 1), strict=True):
            parameter.grad = gradient
        optimizer.step()
    return parameters, optimizer


@pytest.mark.parametrize("shape", [(6, 6), (6, 20), (20, 6)])
def test_singular_values_go_through_the_polynomial_and_the_vectors_stay(shape):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(1)).double()
    left, values, right = torch.linalg.svd(matrix / matrix.norm(), full_matrices=False)
    a, b, c = COEFFICIENTS
    for _ in range(5):
        values = a * values + b * values**3 + c * values**5
    expected = left @ torch.diag(values) @ right
    (found,) = orthogonalized(matrix.float()[None], COEFFICIENTS, 5, 1e-7)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", [(64, 64), (64, 256), (256, 64)])
def test_in_fp32_small_singular_values_are_kept_from_rounding(shape):
    noise = torch.randn(*shape, generator=torch.Generator().manual_seed(2)).double()
    left, _, right = torch.linalg.svd(noise, full_matrices=False)
    matrix = left @ torch.diag(torch.logspace(0, -5, 64, dtype=torch.float64)) @ right
    (exact,) = orthogonalized(matrix[None], COEFFICIENTS, 5, 1e-7)
    (found,) = orthogonalized(matrix.float()[None], COEFFICIENTS, 5, 1e-7)
    assert (found - exact).abs().max() < 2e-3 * exact.abs().max()  # bfloat16: 0.3


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("exponent", [-1, -3, -5])
@pytest.mark.parametrize("shape", [(64, 256), (256, 64)])
def test_in_bf16_products_of_rows_round_little_or_less_than_the_iteration_on_matrices(
    shape, exponent, seed, monkeypatch
):
    noise = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()
    left, _, right = torch.linalg.svd(noise, full_matrices=False)
    matrix = left @ torch.diag(torch.logspace(0, exponent, 64, dtype=torch.float64)) @ right

    def error():
        (found,) = orthogonalized(matrix.bfloat16()[None], COEFFICIENTS, 5, 1e-7)
        return float((found - exact).norm() / exact.norm())

    (exact,) = orthogonalized(matrix[None], COEFFICIENTS, 5, 1e-7)
    by_rows = error()
    monkeypatch.setattr(muon, "GRAM_ROUNDS", {})
    assert by_rows < max(0.06, 1.2 * error())


@pytest.mark.parametrize("shape", [(3, 4), (3, 8), (8, 3)])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_matrix_without_gradient_stays_zero(precision, shape):
    zeros = torch.zeros(2, *shape, dtype=PRECISIONS[precision])
    assert orthogonalized(zeros, COEFFICIENTS, 5, 1e-7).abs().max() == 0


@pytest.mark.parametrize("precision", PRECISIONS)
def test_it_takes_the_steps_of_torch_up_to_the_rounding_of_bfloat16(precision):
    ours, theirs = stepped(dtype=PRECISIONS[precision]), stepped()
    for found, wanted, start in zip(ours[0], theirs[0], matrices(0), strict=True):
        moved = (wanted - start).norm()
        assert (found - wanted).norm() < 0.04 * moved
    for parameter, other in zip(ours[0], theirs[0], strict=True):
        buffers = (ours[1].state[parameter], theirs[1].state[other])
        torch.testing.assert_close(*(state["momentum_buffer"] for state in buffers))


@pytest.mark.parametrize("options", [{}, dict(nesterov=False), dict(weight_decay=0.0)], ids=str)
def test_in_fp32_it_is_the_iteration_of_torch_without_its_rounding(monkeypatch, options):
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self.clone())  # as torch begins it
    ours, theirs = stepped(dtype=torch.float32, **options), stepped(**options)
    for found, wanted in zip(ours[0], theirs[0], strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_stack_is_taken_as_its_matrices_one_by_one(monkeypatch, precision):
    whole, _ = stepped(dtype=PRECISIONS[precision])
    monkeypatch.setattr(muon, "MOST_ELEMENTS", 1)
    parts, _ = stepped(dtype=PRECISIONS[precision])
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)], ids=str)
def test_normuon_is_muon_with_neurons_divided_by_their_running_size(shape):
    rate, momentum, decay, weight_decay = 0.1, 0.9, 0.8, 0.01
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    parameter = torch.nn.Parameter(matrix.clone())
    ours = BatchedMuon(
        [parameter], dtype=torch.float32, lr=rate, momentum=momentum,
        weight_decay=weight_decay, moment_decay=decay,
    )  # fmt: skip
    buffer, sizes = torch.zeros(shape), torch.zeros(max(shape))
    for step in range(3):
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(step))
        parameter.grad = gradient.clone()
        ours.step()
        buffer = momentum * buffer + (1 - momentum) * gradient
        ahead = momentum * buffer + (1 - momentum) * gradient
        (update,) = orthogonalized(ahead[None], COEFFICIENTS, 5, 1e-7)
        tall = update if shape[0] >= shape[1] else update.T  # one neuron a row
        even = torch.empty_like(tall)
        for number, neuron in enumerate(tall):
            mean = sum(float(value) ** 2 for value in neuron) / len(neuron)
            sizes[number] = decay * sizes[number] + (1 - decay) * mean
            even[number] = neuron / sizes[number].sqrt()
        even *= tall.norm() / even.norm()
        even = even if shape[0] >= shape[1] else even.T
        scale = max(1.0, shape[0] / shape[1]) ** 0.5
        matrix = (1 - rate * weight_decay) * matrix - rate * scale * even
    torch.testing.assert_close(parameter.detach(), matrix, atol=1e-5, rtol=1e-5)
    moments = ours.state[parameter]["second_moment"]
    torch.testing.assert_close(moments.flatten(), sizes, atol=1e-7, rtol=1e-5)


def test_neurons_that_never_move_stay_and_hurt_nothing():
    parameter = torch.nn.Parameter(torch.zeros(6, 3))
    ours = BatchedMuon([parameter], dtype=torch.float32, lr=0.1, moment_decay=0.9)
    for gradient in (torch.zeros(6, 3), torch.tensor([1.0, 2, 0, 3, 0, 4]).diag()[:, [0, 1, 3]]):
        parameter.grad = gradient
        ours.step()
    assert parameter.isfinite().all()
    assert (parameter.abs().sum(1) > 0).tolist() == [True, True, False, True, False, False]


def test_only_matrices_with_a_gradient_move():
    parameters = [torch.nn.Parameter(matrix) for matrix in matrices(0)]
    parameters[0].grad = torch.ones(8, 8)
    BatchedMuon(parameters, dtype=torch.float32, lr=0.02).step()
    moved = [not torch.equal(p, start) for p, start in zip(parameters, matrices(0), strict=True)]
    assert moved == [True, False, False, False, False]
