"""Training state on disk in shares: each process writes the rows it holds, any number read them.

shard_00000.safetensors holds the rows of rank 0 as `model/NAME` and `optimizer/NAME:key`, and in
its header where each slice begins in which shape. torch's own format for this has pickles in it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from utils.errors import CheckpointError
from utils.training.devices.fsdp import from_own_rows, own_rows, whole
from utils.training.step.optimizer import Optimizers

MODEL, OPTIMIZER = "model/", "optimizer/"
WHOLE_FILES = {"model.safetensors": MODEL, "optimizer.safetensors": OPTIMIZER}
"""Files of an ordinary checkpoint: slices that are everything."""


SHARDS = "shard_*.safetensors"


def shard_name(rank: int) -> str:
    """Return the file name of what process `rank` holds."""
    return f"shard_{rank:05d}.safetensors"


def state_tensors(model: nn.Module | None, optimizers: Optimizers) -> dict[str, Tensor]:
    """Return weights (unless the model is left out) and optimizer state under the names on disk."""
    weights = model.named_parameters() if model is not None else ()
    return {
        **{f"{MODEL}{name}": parameter.detach() for name, parameter in weights},
        **{f"{OPTIMIZER}{name}": value for name, value in optimizers.tensors().items()},
    }


@dataclass(frozen=True)
class Share:
    """What one process holds, copied to the memory of the host."""

    rank: int
    tensors: dict[str, Tensor]
    slices: dict[str, dict[str, object]]
    """Shape of the whole tensor and the row its share starts at."""

    @classmethod
    def of(cls, state: dict[str, Tensor], rank: int) -> Self:
        """Copy the share of process `rank`; what is not spread belongs to rank 0."""
        own = {k: v for k, v in state.items() if rank == 0 or isinstance(v, DTensor)}
        tensors = {
            name: (value.to_local() if isinstance(value, DTensor) else value)
            .to("cpu", copy=True)
            .contiguous()
            for name, value in own.items()
        }
        slices: dict[str, dict[str, object]] = {
            name: {"shape": list(value.shape), "start": own_rows(value)[0]}
            for name, value in own.items()
        }
        return cls(rank, tensors, slices)

    def write(self, folder: Path) -> None:
        """Write it as a file of `folder`."""
        # one key: safetensors writes several in random order, and equal states are equal bytes
        metadata = {"slices": json.dumps(self.slices, sort_keys=True)}
        save_file(self.tensors, folder / shard_name(self.rank), metadata=metadata)


def whole_weights(model: nn.Module, *, keep: bool) -> dict[str, Tensor]:
    """Return all weights on the CPU of the processes that `keep` them; all must call it."""
    weights = {}
    for name, parameter in model.named_parameters():
        value = whole(parameter.detach())
        if keep:
            weights[name] = value.cpu()
    return weights


@dataclass
class Slice:
    """Rows [start, start + rows) of a tensor, in a file."""

    path: Path
    key: str
    start: int
    rows: int


@dataclass
class StoredState:
    """What a checkpoint holds, whole or in shares."""

    shapes: dict[str, tuple[int, ...]]
    slices: dict[str, list[Slice]]

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read the headers of the tensor files of `folder`."""
        stored = cls({}, {})
        for path in sorted(folder.glob("*.safetensors")):
            prefix = WHOLE_FILES.get(path.name, "")
            with safe_open(path, "pt") as file:
                places = json.loads((file.metadata() or {}).get("slices", "{}"))
                for key in file.keys():  # noqa: SIM118 (no mapping)
                    found = tuple(file.get_slice(key).get_shape())
                    place = places.get(key, {"shape": found, "start": 0})
                    rows = found[0] if found else 1
                    stored.shapes[prefix + key] = tuple(place["shape"])
                    part = Slice(path, key, int(place["start"]), rows)
                    stored.slices.setdefault(prefix + key, []).append(part)
        return stored

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return rows [start, stop) of a tensor (a number is one row).

        Raises:
            CheckpointError: some of them are in no file.
        """
        parts, position = [], start
        for piece in sorted(self.slices[name], key=lambda piece: piece.start):
            first, last = max(position, piece.start), min(stop, piece.start + piece.rows)
            if first > position or first >= last:
                continue
            with safe_open(piece.path, "pt") as file:
                if not self.shapes[name]:
                    return file.get_tensor(piece.key)
                parts.append(file.get_slice(piece.key)[first - piece.start : last - piece.start])
            position = last
        if position < stop:
            folder = self.slices[name][0].path.parent
            raise CheckpointError(
                f"{folder} lacks rows {position} to {stop} of {name}: use another checkpoint"
            )
        if not parts:  # this process holds nothing of it
            return torch.empty(0, *self.shapes[name][1:])
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def like(self, parameters: Mapping[str, Tensor], prefix: str) -> Iterator[tuple[str, Tensor]]:
        """Yield (name without `prefix`, value), spread over the processes as its parameter is."""
        for full_name in (name for name in self.shapes if name.startswith(prefix)):
            name, shape = full_name.removeprefix(prefix), self.shapes[full_name]
            parameter = parameters.get(name.partition(":")[0])
            if parameter is None or tuple(parameter.shape) != shape:
                yield name, self.rows(full_name, 0, shape[0] if shape else 1)
                continue
            yield name, from_own_rows(self.rows(full_name, *own_rows(parameter)), parameter)


def read_state(folder: Path, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return (weights, optimizer state) of a checkpoint, spread as the parameters of `model` are.

    Raises:
        CheckpointError: a share is missing.
    """
    stored, parameters = StoredState.open(folder), dict(model.named_parameters())
    return dict(stored.like(parameters, MODEL)), dict(stored.like(parameters, OPTIMIZER))
