"""Muon over sharded matrices: momentum stays where it is, each process orthogonalizes some of them.

Legend: W processes, N matrices of one shape, k = N / W rounded up, r rows of a share.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Muon

from utils.training.muon import MOST_ELEMENTS, orthogonalized


class ShardedMuon(Muon):
    """`torch.optim.Muon` for parameters that `utils.training.sharding` spread over processes.

    A matrix is brought together on one process, orthogonalized there, and its rows go back.
    """

    def __init__(self, params: Iterable[Tensor], *, dtype: torch.dtype, **options: Any) -> None:
        super().__init__(params, **options)
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update the matrices that have a gradient; all processes must call it."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[DTensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for parameters in by_shape.values():
                each = max(1, MOST_ELEMENTS // parameters[0].numel())
                size = each * parameters[0].device_mesh.size()
                for start in range(0, len(parameters), size):
                    self._update(parameters[start : start + size], group)

    def _update(self, parameters: list[DTensor], group: dict[str, Any]) -> None:
        """Update matrices of one shape."""
        directions = [self._direction(parameter, group) for parameter in parameters]
        rows, columns = parameters[0].shape
        rate = group["lr"] * math.sqrt(max(1.0, rows / columns))
        for parameter, direction in zip(
            parameters,
            _orthogonalized_shares(directions, parameters[0], group, self.dtype),
            strict=True,
        ):
            local = parameter.to_local()
            local.mul_(1 - group["lr"] * group["weight_decay"])
            local.add_(direction, alpha=-rate)

    def _direction(self, parameter: DTensor, group: dict[str, Any]) -> Tensor:
        """Return the own rows of the momentum, looked ahead with Nesterov's rule."""
        state, gradient = self.state[parameter], parameter.grad
        assert isinstance(gradient, DTensor)
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        own: Tensor = gradient.to_local()
        buffer: Tensor = state["momentum_buffer"].to_local()
        buffer.lerp_(own, 1 - group["momentum"])
        return own.lerp(buffer, group["momentum"]) if group["nesterov"] else buffer


def _orthogonalized_shares(
    shares: list[Tensor], like: DTensor, group: dict[str, Any], dtype: torch.dtype
) -> list[Tensor]:
    """Return the own rows of N orthogonalized matrices, given the own rows of each."""
    mesh, (rows, columns) = like.device_mesh, like.shape
    count = mesh.size()
    k, r = -(-len(shares) // count), -(-rows // count)
    stack = like.to_local().new_zeros(count * k, r, columns)
    for number, share in enumerate(shares):
        stack[number, : len(share)] = share
    exchanged = torch.empty_like(stack)
    dist.all_to_all_single(exchanged, stack, group=mesh.get_group())
    # what came from process w are the w-th rows of the own matrices: (W, k, r, columns)
    matrices = exchanged.view(count, k, r, columns).transpose(0, 1).reshape(k, count * r, columns)
    matrices[:, :rows] = orthogonalized(
        matrices[:, :rows].to(dtype), group["ns_coefficients"], group["ns_steps"], group["eps"]
    ).to(matrices.dtype)
    back = matrices.view(k, count, r, columns).transpose(0, 1).contiguous()
    dist.all_to_all_single(stack, back.view(count * k, r, columns), group=mesh.get_group())
    return [stack[number, : len(share)] for number, share in enumerate(shares)]
