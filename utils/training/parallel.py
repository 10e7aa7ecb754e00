"""One process or many, through Accelerate: device, sums of gradients, decisions of rank 0.

Each process works on other rows of the same global batch; gradients are summed once per step.
"""

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, broadcast_object_list
from torch import Tensor, nn

from utils.errors import ConfigError
from utils.training.run import world_size


class Processes:
    """The processes of this run."""

    def __init__(self, *, cpu: bool = False) -> None:
        """Join the process group that the launcher prepared, if any.

        Raises:
            ConfigError: fewer processes came together than the launcher was asked for.
        """
        self.accelerator = Accelerator(cpu=cpu)
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

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of `value` over the processes."""
        if self.count == 1:
            return value
        return self.accelerator.reduce(value, "sum")  # pyright: ignore[reportReturnType]

    def any(self, flag: bool) -> bool:
        """Return whether `flag` holds on any process."""
        if self.count == 1:
            return flag
        return bool(self.sum(torch.tensor(float(flag), device=self.device)))

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
