"""Copies of tensors in memory of the host, in buffers that are used again for each save."""

from collections.abc import Mapping

import psutil
import torch
from torch import Tensor

MEMORY_SHARE = 0.5
"""Share of the memory at hand that the buffers may take: the next step needs its activations."""


class HostCopy:
    """Buffers in memory of the host, pinned where the tensors lie on a GPU."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def fits(self, tensors: Mapping[str, Tensor]) -> bool:
        """Return whether memory is there for what is not in the buffers yet."""
        needed = sum(
            tensor.nbytes for name, tensor in tensors.items() if not self._has(name, tensor)
        )
        return needed == 0 or needed <= MEMORY_SHARE * psutil.virtual_memory().available

    def reserve(self, tensors: Mapping[str, Tensor]) -> None:
        """Make the buffers and touch each page, which takes longer than to copy."""
        for name, tensor in tensors.items():
            if not self._has(name, tensor):
                pinned = tensor.device.type == "cuda"
                buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)
                self._buffers[name] = buffer.zero_()

    def take(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return copies that hold until the next `take`; what computes them is waited for once."""
        self.reserve(tensors)
        for name, tensor in tensors.items():
            self._buffers[name].copy_(tensor.detach(), non_blocking=True)
        for kind in {tensor.device.type for tensor in tensors.values()} - {"cpu"}:
            torch.get_device_module(kind).synchronize()
        return {name: self._buffers[name] for name in tensors}

    def _has(self, name: str, tensor: Tensor) -> bool:
        buffer = self._buffers.get(name)
        return buffer is not None and buffer.shape == tensor.shape and buffer.dtype == tensor.dtype
