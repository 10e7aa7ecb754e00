"""How the gradients and losses of a step's micro-batches become one sum.

Fast: each process adds up its own, then the processes add theirs; the bits depend on their number.
Canonical: a binary tree over the micro-batches of the global batch, whoever computed them.

Legend: M micro-batches of a step over all processes, W processes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from utils.config.pretrain import PretrainConfig
from utils.errors import ConfigError
from utils.training.devices.fsdp import is_sharded
from utils.training.devices.processes import Processes


def fitting_micro_batch(rows: int, size: int, count: int, *, canonical: bool) -> int:
    """Return the rows of a micro-batch, `size` at most, that share `rows` evenly among processes.

    In canonical mode the size of a micro-batch decides the bits, so it is `size` or refused.

    Raises:
        ConfigError: `rows` cannot be shared out like this.
    """
    if rows % count:
        raise ConfigError(
            f"a global batch of {rows} rows does not go evenly into {count} processes: change "
            "--global_batch_size or the number of processes"
        )
    if not canonical:
        share = rows // count
        return max(part for part in range(1, min(size, share) + 1) if share % part == 0)
    if rows % (size * count):
        raise ConfigError(
            f"{rows} rows in micro-batches of {size} do not go evenly into {count} processes: a "
            "canonical sum needs a number of processes that divides the micro-batches"
        )
    return size


class FastSum:
    """Adds up where the gradients are, then over the processes in one exchange."""

    def __init__(self, model: nn.Module, processes: Processes) -> None:
        self.model, self.processes = model, processes
        self.loss = torch.zeros((), device=processes.device)

    def add(self, loss: Tensor) -> None:
        """Take the loss of a micro-batch; its gradients were added to `.grad` by autograd."""
        self.loss += loss

    def finish(self) -> Tensor:
        """Put the sums over all processes into `.grad`; return the summed loss."""
        if not is_sharded(self.model):  # FSDP has exchanged them in the backward pass
            self.processes.sum_gradients(self.model)
        return self.processes.sum(self.loss)


@dataclass
class Node:
    """Sum of the micro-batches [index * 2**level, (index + 1) * 2**level) as far as they exist."""

    level: int
    index: int
    tensors: list[Tensor]


@dataclass
class Tree:
    """Adds neighbours of one level as soon as both are there: log2(M) + 1 nodes exist at most."""

    nodes: list[Node] = field(default_factory=list)

    def push(self, node: Node) -> None:
        """Take the next node to the right."""
        self.nodes.append(node)
        while len(self.nodes) > 1 and _are_twins(*self.nodes[-2:]):
            right, left = self.nodes.pop(), self.nodes.pop()
            torch._foreach_add_(left.tensors, right.tensors)  # pyright: ignore[reportPrivateImportUsage]
            self.nodes.append(Node(left.level + 1, left.index // 2, left.tensors))

    def total(self) -> list[Tensor]:
        """Return the sum of all; where M is no power of two, the right part is smaller."""
        while len(self.nodes) > 1:
            right = self.nodes.pop()
            torch._foreach_add_(self.nodes[-1].tensors, right.tensors)  # pyright: ignore[reportPrivateImportUsage]
        return self.nodes.pop().tensors


def _are_twins(left: Node, right: Node) -> bool:
    is_even = left.index % 2 == 0
    return is_even and left.level == right.level and left.index + 1 == right.index


def complete_nodes(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield (level, index) of the largest tree nodes that make up micro-batches [start, stop)."""
    while start < stop:
        level = 0
        while start % 2 ** (level + 1) == 0 and start + 2 ** (level + 1) <= stop:
            level += 1
        yield level, start // 2**level
        start += 2**level


class CanonicalSum:
    """Adds gradients and losses as one tree over all micro-batches: the same bits for any W."""

    def __init__(self, model: nn.Module, processes: Processes, per_process: int) -> None:
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.processes, self.per_process = processes, per_process
        self.place, self.tree = processes.rank * per_process, Tree()

    def add(self, loss: Tensor) -> None:
        """Take the gradients of a micro-batch away from the parameters, and its loss."""
        gradients = [_taken(parameter) for parameter in self.parameters]
        self.tree.push(Node(0, self.place, [*gradients, loss.clone()]))
        self.place += 1

    def finish(self) -> Tensor:
        """Put the sums over all processes into `.grad`; return the summed loss."""
        if self.processes.count == 1:
            *gradients, loss = self.tree.total()
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.grad = gradient
            return loss
        flat = self._over_processes()
        sizes = [*(parameter.numel() for parameter in self.parameters), 1]
        *parts, loss = flat.split(sizes)
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter).clone()  # memory aligned as without exchange
        return loss[0]

    def _over_processes(self) -> Tensor:
        """Hand every process's nodes to all, from left to right, and go on adding."""
        own, whole = iter(self.tree.nodes), Tree()
        size = 1 + sum(parameter.numel() for parameter in self.parameters)
        for rank in range(self.processes.count):
            start = rank * self.per_process
            for level, index in complete_nodes(start, start + self.per_process):
                if rank == self.processes.rank:
                    node = next(own)
                    flat = torch.cat([tensor.flatten() for tensor in node.tensors])
                    node.tensors.clear()
                else:
                    flat = torch.empty(size, device=self.processes.device)
                self.processes.hand_out(flat, rank)
                whole.push(Node(level, index, [flat]))
        (flat,) = whole.total()
        return flat


def _taken(parameter: nn.Parameter) -> Tensor:
    gradient, parameter.grad = parameter.grad, None
    return torch.zeros_like(parameter) if gradient is None else gradient


def new_sum(
    cfg: PretrainConfig, model: nn.Module, processes: Processes, per_process: int
) -> FastSum | CanonicalSum:
    """Return an empty sum over `per_process` micro-batches of each process."""
    if cfg.reduce == "canonical":
        return CanonicalSum(model, processes, per_process)
    return FastSum(model, processes)
