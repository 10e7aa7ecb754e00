"""One process or many, through Accelerate: device, exchange of tensors, decisions of rank 0.

Each process works on other rows of a global batch (`utils.training.step.gradient_sum` adds them).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psutil
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast, broadcast_object_list
from torch import Tensor, nn

from utils.errors import ConfigError, LumiError

PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others: compiling and hashing a checkpoint take minutes."""
LOST = ("gloo", "NCCL", "Connection closed", "Connection reset", "Timed out waiting")
"""What errors of the process group say."""


class Processes:
    """The processes of this run."""

    def __init__(self, *, cpu: bool = False) -> None:
        """Join the process group that the launcher prepared, if any.

        Raises:
            ConfigError: fewer processes came together than the launcher was asked for.
        """
        patience = InitProcessGroupKwargs(timeout=PATIENCE)
        self.accelerator = Accelerator(cpu=cpu, kwargs_handlers=[patience])
        self.count = self.accelerator.num_processes
        self.rank = self.accelerator.process_index
        self.device = self.accelerator.device
        self.is_main = self.accelerator.is_main_process
        if self.count != world_size():
            raise ConfigError(
                f"{world_size()} processes were asked for, {self.count} came together: on a CPU "
                "start them with `torchrun --nproc_per_node N`"
            )

    def share(self, value: Any) -> Any:
        """Return rank 0's `value` on every process."""
        return broadcast_object_list([value])[0] if self.count > 1 else value

    def share_numbers(self, numbers: list[int]) -> list[int]:
        """Return rank 0's whole numbers on every process (cheap enough for every step)."""
        if self.count == 1:
            return numbers
        tensor = torch.tensor(numbers, dtype=torch.int64, device=self.device)
        return [int(number) for number in broadcast(tensor)]  # pyright: ignore[reportGeneralTypeIssues]

    def any(self, is_true: bool) -> bool:
        """Return whether it is true on any process."""
        if self.count == 1:
            return is_true
        return bool(self.sum(torch.tensor(int(is_true), device=self.device)).item())

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of `value` over the processes."""
        if self.count == 1:
            return value
        return self.accelerator.reduce(value, "sum")  # pyright: ignore[reportReturnType]

    def hand_out(self, tensor: Tensor, source: int) -> None:
        """Overwrite `tensor` on every process by that of rank `source`."""
        dist.broadcast(tensor, src=source)

    def sum_gradients(self, model: nn.Module) -> None:
        """Replace each gradient by its sum over the processes, in one exchange."""
        if self.count == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        sizes = [gradient.numel() for gradient in gradients]
        flat = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, flat.split(sizes), strict=True):
            gradient.copy_(part.view_as(gradient))

    def wait(self) -> None:
        """Wait for every process to get here."""
        self.accelerator.wait_for_everyone()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Tell in one line when another process has died or answers no more.

        Raises:
            LumiError: an exchange failed or took longer than `PATIENCE`.
        """
        try:
            yield
        except RuntimeError as error:
            is_lost = isinstance(error, dist.DistError) or any(word in str(error) for word in LOST)
            if self.count == 1 or not is_lost:
                raise
            reason = " ".join(str(error).split())[:160]
            raise LumiError(
                f"process {self.rank} of {self.count} lost another one ({reason}): see what that "
                "one said, then go on from the last checkpoint by the same command"
            ) from error


def world_size() -> int:
    """Return the number of processes that the launcher was asked for."""
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    try:  # `accelerate launch --cpu --num_processes 2` starts one process and tells it nothing
        launcher = psutil.Process().parent()
        words = launcher.cmdline() if launcher else []
    except psutil.Error:
        words = []
    if "--num_processes" in words[:-1] and any("accelerate" in word for word in words):
        return int(words[words.index("--num_processes") + 1])
    return 1
