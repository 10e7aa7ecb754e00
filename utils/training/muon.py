"""Muon in fp32, for processors that only emulate bfloat16.

`torch.optim.Muon` orthogonalizes in bfloat16. Where that is emulated it takes a third of a training
step; here the same iteration runs in fp32, over all matrices of one shape at once.

Reference: Muon (Jordan et al., 2024).
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Muon

MOST_ELEMENTS = 2**25
"""Elements of a stack of matrices: 128 MB, of which a few exist at a time."""


class FP32Muon(Muon):
    """`torch.optim.Muon` with its orthogonalization in fp32; state and settings are the same."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update the matrices that have a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for parameters in by_shape.values():
                for part in _parts(parameters):
                    self._update(part, group)

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Update matrices of one shape."""
        directions = []
        for parameter in parameters:
            assert parameter.grad is not None
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            buffer: Tensor = state["momentum_buffer"]
            buffer.lerp_(parameter.grad, 1 - group["momentum"])
            nesterov = parameter.grad.lerp(buffer, group["momentum"])
            directions.append(nesterov if group["nesterov"] else buffer)
        stack = torch.stack(directions)  # (N, rows, columns)
        steps, eps = group["ns_steps"], group["eps"]
        stack = orthogonalized(stack, group["ns_coefficients"], steps, eps)
        rows, columns = parameters[0].shape
        rate = group["lr"] * math.sqrt(max(1.0, rows / columns))
        for parameter, direction in zip(parameters, stack, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(direction, alpha=-rate)


def orthogonalized(
    stack: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """Return matrices (N, rows, columns) with all singular values brought near 1."""
    is_tall = stack.shape[1] > stack.shape[2]
    wide = stack.mT if is_tall else stack
    wide = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    a, b, c = coefficients
    for _ in range(steps):
        gram = wide @ wide.mT
        update = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        wide = torch.baddbmm(wide, update, wide, beta=a)
    return wide.mT if is_tall else wide


def _parts(parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    """Yield runs of `parameters` whose stack stays within `MOST_ELEMENTS`."""
    size = max(1, MOST_ELEMENTS // parameters[0].numel())
    for start in range(0, len(parameters), size):
        yield parameters[start : start + size]
