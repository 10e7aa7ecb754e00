"""FSDP2: each process holds a share of the rows of every parameter, gradient and optimizer state.

A block's weights are whole only while it is computed. What reads the embedding or the head outside
of `forward` goes through `with_weights`. Knows nothing about files
(`utils.training.checkpoints.shares`).
"""

from collections.abc import Callable
from types import MethodType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard

Result = TypeVar("Result")


def shard(model: nn.Module, device: torch.device, count: int) -> None:
    """Spread the parameters of a Llama-like model over `count` processes, in place.

    Gradients are summed, not averaged: the loss of a micro-batch is already divided by the targets
    of the whole step.
    """
    mesh = init_device_mesh(device.type, (count,))
    for layer in model.model.layers:  # pyright: ignore[reportGeneralTypeIssues,reportAttributeAccessIssue]
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no other
    model.call_with_weights = MethodType(_call, model)  # pyright: ignore[reportArgumentType]
    register_fsdp_forward_method(model, "call_with_weights")


def _call(model: nn.Module, function: Callable[..., Any], *inputs: Any) -> Any:
    return function(model, *inputs)


def is_sharded(model: nn.Module) -> bool:
    """Return whether `shard` has spread this model."""
    return isinstance(model, FSDPModule)


def with_weights(model: nn.Module, function: Callable[..., Result], *inputs: Any) -> Result:
    """Return function(model, *inputs) with embedding, last norm and head whole while it runs.

    All processes must call it. A model that is not sharded is passed as it is.
    """
    if not is_sharded(model):
        return function(model, *inputs)
    return model.call_with_weights(function, *inputs)  # pyright: ignore[reportCallIssue]


def whole(tensor: Tensor) -> Tensor:
    """Return all of `tensor` on every process; all must call it where it is sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_part(tensor: Tensor) -> Tensor:
    """Return what this process holds of `tensor`."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def own_rows(like: Tensor) -> tuple[int, int]:
    """Return [start, stop) of the rows of `like` that this process holds (torch.chunk's rule)."""
    rows = like.shape[0] if like.ndim else 1
    if not isinstance(like, DTensor):
        return 0, rows
    mesh = like.device_mesh
    assert like.placements == (Shard(0),)
    size = -(-rows // mesh.size())
    start = min(rows, mesh.get_local_rank() * size)
    return start, min(rows, start + size)


def from_own_rows(local: Tensor, like: Tensor) -> Tensor:
    """Return `local`, the own rows of a tensor in the shape of `like`, spread as `like` is."""
    if not isinstance(like, DTensor):
        return local
    return DTensor.from_local(
        local.to(like.device),
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )
