"""Numbers of training steps that are computed on a device and read on the host without a stall.

Reading a loss on a GPU right after its step makes the host wait for the device, and then the device
for the host. Here each step's numbers are copied behind the step into pinned memory; they are read
when a later step is queued, so that the device always has work.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class _Pending:
    step: int
    names: tuple[str, ...]
    numbers: Tensor
    """(number of names,) fp64 on the host; whole once `copied` has passed."""
    copied: torch.cuda.Event | None


class StepValues:
    """A queue of numbers by step. On a CPU they are there at once, and `lag` is nothing."""

    def __init__(self, device: torch.device, lag: int = 1) -> None:
        """Keep the numbers of `lag` steps in flight on a GPU."""
        self._is_cuda = device.type == "cuda"
        self.lag = lag if self._is_cuda else 0
        self._pending: deque[_Pending] = deque()

    def add(self, step: int, **values: Tensor) -> None:
        """Queue the scalars of `step` for reading, as they are at this point of the device's work.

        They are widened to fp64, so that what is read is what the device had.
        """
        numbers = torch.stack([value.detach().double() for value in values.values()])
        copied = None
        if self._is_cuda:
            pinned = torch.empty(len(values), dtype=torch.float64, pin_memory=True)
            numbers = pinned.copy_(numbers, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        self._pending.append(_Pending(step, tuple(values), numbers, copied))

    def read(self, *, drain: bool = False) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield (step, its numbers), oldest first, of all steps but the newest `lag`.

        `drain` yields those too and waits for the device: before anything is saved or recorded.
        """
        while len(self._pending) > (0 if drain else self.lag):
            done = self._pending.popleft()
            if done.copied is not None:
                done.copied.synchronize()
            yield done.step, dict(zip(done.names, done.numbers.tolist(), strict=True))
