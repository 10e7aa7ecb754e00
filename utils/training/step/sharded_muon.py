"""Muon over sharded matrices: momentum stays where it is, each process orthogonalizes some of them.

Legend: W processes, N matrices of one shape, k = N / W rounded up, r rows of a share. The second
moments of NorMuon, a number for each neuron, are whole on every process.
"""

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from utils.training.step.muon import BatchedMuon, evened, orthogonalized, second_moment


class ShardedMuon(BatchedMuon):
    """`BatchedMuon` for parameters that `utils.training.devices.fsdp` spread over processes.

    A matrix is brought together on one process, orthogonalized there, and its rows go back. All
    processes must call `step`.
    """

    def _stack_size(self, matrix: DTensor) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super()._stack_size(matrix) * matrix.device_mesh.size()

    def _update(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, parameters: list[DTensor], group: dict[str, Any]
    ) -> None:
        """Update matrices of one shape."""
        like = parameters[0]
        matrices = _brought_together([self._direction(p, group) for p in parameters], like)
        updates = orthogonalized(
            matrices.to(self.dtype), group["ns_coefficients"], group["ns_steps"], group["eps"]
        ).to(matrices.dtype)
        if self.moment_decay is not None:
            updates = self._evened(updates, parameters, self.moment_decay)
        rows, columns = like.shape
        rate = group["lr"] * math.sqrt(max(1.0, rows / columns))
        for parameter, update in zip(parameters, _sent_back(updates, like), strict=False):
            local = parameter.to_local()
            local.mul_(1 - group["lr"] * group["weight_decay"])
            local.add_(update[: len(local)], alpha=-rate)

    def _evened(self, updates: Tensor, parameters: list[DTensor], decay: float) -> Tensor:
        """Even out the neurons of the own matrices; tell their second moments to the others."""
        mesh, k = parameters[0].device_mesh, len(updates)
        moments = [second_moment(self.state[p], p) for p in parameters]
        together = moments[0].new_zeros(mesh.size() * k, *moments[0].shape)
        together[: len(moments)] = torch.stack(moments)
        first = mesh.get_local_rank() * k
        own = together[first : first + k].clone()
        updates = evened(updates, own, decay)
        dist.all_gather_single(together, own, group=mesh.get_group())
        for moment, value in zip(moments, together, strict=False):
            moment.copy_(value)
        return updates

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


def _brought_together(shares: list[Tensor], like: DTensor) -> Tensor:
    """Return the own k of N matrices whole (k, rows, columns), given the own rows of each."""
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
    return matrices[:, :rows]


def _sent_back(matrices: Tensor, like: DTensor) -> Tensor:
    """Return the own rows of all matrices (W * k, r, columns), given the own ones whole."""
    mesh, (k, rows, columns) = like.device_mesh, matrices.shape
    count = mesh.size()
    r = -(-rows // count)
    padded = torch.nn.functional.pad(matrices, (0, 0, 0, count * r - rows))
    stack = padded.reshape(k, count, r, columns).transpose(0, 1).contiguous()
    shares = stack.new_empty(count * k, r, columns)
    dist.all_to_all_single(shares, stack.view_as(shares), group=mesh.get_group())
    return shares
