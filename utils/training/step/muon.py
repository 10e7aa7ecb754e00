"""Muon over stacks of matrices of one shape, in the precision that the processor is good at.

`torch.optim.Muon` takes one matrix after the other, in bfloat16. Where bfloat16 is emulated that is
a third of a training step, and on a GPU 168 matrices are some thousand launches; here the same
iteration runs over all matrices of one shape at once, in bfloat16 or fp32. NorMuon then evens out
how far the neurons of a matrix move.

Reference: Muon (Jordan et al., 2024); NorMuon (Li et al., 2025).
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Muon

MOST_ELEMENTS = 2**25
"""Elements of a stack of matrices: 128 MB in fp32, of which a few exist at a time."""

OBLONG = 2
"""Columns per row from which it pays to iterate on the products of the rows instead."""

GRAM_ROUNDS = {torch.float32: 5, torch.bfloat16: 3}
"""Rounds on those products after which rounding asks for a fresh look at the matrices."""

SMALLEST_SQUARE = 1e-16
"""Running mean square of a neuron below which it is taken for one that does not move."""


class BatchedMuon(Muon):
    """`torch.optim.Muon` over stacks of matrices; state and settings are the same.

    With a `moment_decay` it is NorMuon, whose state has a `second_moment` beside the momentum.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        dtype: torch.dtype,
        moment_decay: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(params, **options)
        self.dtype, self.moment_decay = dtype, moment_decay

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update the matrices that have a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for parameters in by_shape.values():
                size = self._stack_size(parameters[0])
                for start in range(0, len(parameters), size):
                    self._update(parameters[start : start + size], group)

    def _stack_size(self, matrix: Tensor) -> int:
        """Return how many matrices like this one are updated together."""
        return max(1, MOST_ELEMENTS // matrix.numel())

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Update matrices of one shape; a handful of launches, however many they are."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        buffers, momentum = [self._buffer(p) for p in parameters], group["momentum"]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)  # pyright: ignore[reportPrivateImportUsage]
        directions = buffers
        if group["nesterov"]:
            directions = torch._foreach_lerp(gradients, buffers, momentum)  # pyright: ignore[reportPrivateImportUsage]
        shape = (len(directions), *directions[0].shape)
        stack = directions[0].new_empty(shape, dtype=self.dtype)  # (N, rows, columns)
        torch._foreach_copy_(stack.unbind(), directions)  # pyright: ignore[reportPrivateImportUsage]
        steps, eps = group["ns_steps"], group["eps"]
        stack = orthogonalized(stack, group["ns_coefficients"], steps, eps)
        stack = stack.to(parameters[0].dtype)
        if self.moment_decay is not None:
            moments = [second_moment(self.state[p], p) for p in parameters]
            together = torch.stack(moments)
            stack = evened(stack, together, self.moment_decay)
            torch._foreach_copy_(moments, together.unbind())  # pyright: ignore[reportPrivateImportUsage]
        rows, columns = parameters[0].shape
        rate = group["lr"] * math.sqrt(max(1.0, rows / columns))
        if group["weight_decay"]:
            kept = 1 - group["lr"] * group["weight_decay"]
            torch._foreach_mul_(parameters, kept)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_add_(parameters, stack.unbind(), alpha=-rate)  # pyright: ignore[reportPrivateImportUsage]

    def _buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]


def orthogonalized(
    stack: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """Return matrices (N, rows, columns) with all singular values brought near 1."""
    is_tall = stack.shape[1] > stack.shape[2]
    wide = stack.mT if is_tall else stack
    if wide.shape[2] >= OBLONG * wide.shape[1] and wide.dtype in GRAM_ROUNDS:
        wide = _by_grams(wide, coefficients, steps, eps)
    else:
        wide = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
        a, b, c = coefficients
        for _ in range(steps):
            gram = wide @ wide.mT
            update = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
            wide = torch.baddbmm(wide, update, wide, beta=a)
    return wide.mT if is_tall else wide


def _by_grams(
    wide: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """Do the same for matrices (N, m, columns) with more columns than rows."""
    most = GRAM_ROUNDS[wide.dtype]
    gram = wide @ wide.mT
    norms = gram.diagonal(dim1=1, dim2=2).sum(1).sqrt().clamp(min=eps)[:, None, None]
    factor = _gram_factor(gram / norms.square(), coefficients, min(most, steps))
    wide = (factor / norms) @ wide
    for done in range(most, steps, most):
        wide = _gram_factor(wide @ wide.mT, coefficients, min(most, steps - done)) @ wide
    return wide


def _gram_factor(gram: Tensor, coefficients: tuple[float, float, float], steps: int) -> Tensor:
    """Return what the iteration multiplies matrices X by from the left, given X X^T (N, m, m).

    Each round is X -> (a + b G + c G^2) X with G = X X^T: all of it can be done on m x m matrices,
    since they are polynomials of one another, and X is needed only twice. In fp32 that moves an
    entry by a thousandth (the test); in bfloat16 the rounding of G would decide from the fourth
    round on. With three the whole is off by 0.02 to 0.04 where singular values are alike (the
    iteration on X: 0.01), and by less than that iteration where they are not.
    """
    a, b, c = coefficients
    factor = None
    for number in range(steps):
        update = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        update.diagonal(dim1=1, dim2=2).add_(a)
        factor = update if factor is None else update @ factor
        if number < steps - 1:
            gram = update @ (update @ gram)
    assert factor is not None
    return factor


def second_moment(state: dict[str, Any], matrix: Tensor) -> Tensor:
    """Return the running mean square of each neuron of `matrix`, zero in a fresh state.

    Neurons are the vectors along its longer side, (rows, 1) or (1, columns): those along the
    shorter one have length 1 after orthogonalization. Never sharded.
    """
    if "second_moment" not in state:
        rows, columns = matrix.shape
        shape = (rows, 1) if rows >= columns else (1, columns)
        state["second_moment"] = torch.zeros(shape, dtype=matrix.dtype, device=matrix.device)
    return state["second_moment"]


def evened(updates: Tensor, moments: Tensor, decay: float) -> Tensor:
    """Return updates (N, rows, columns) whose neurons move alike and whose norms are as before.

    Each is divided by the root of its running mean square in `moments`, (N, rows, 1) or
    (N, 1, columns), which is brought up to date in place; so are `updates`.
    """
    along = 2 if moments.shape[2] == 1 else 1
    squares = torch.linalg.vector_norm(updates, dim=along, keepdim=True).square()  # of neurons
    moments.lerp_(squares / updates.shape[along], 1 - decay)
    factors = moments.clamp(min=SMALLEST_SQUARE).rsqrt()
    norms = (squares * factors.square()).sum((1, 2), keepdim=True).sqrt()
    norms = norms.clamp(min=math.sqrt(SMALLEST_SQUARE))
    factors *= squares.sum((1, 2), keepdim=True).sqrt() / norms
    return updates.mul_(factors)
