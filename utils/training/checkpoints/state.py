"""Checkpoints of pre-training: a Hugging Face folder plus the trainer's own small state.

optimizer.safetensors holds the optimizer's tensors by parameter name, state.json the counters and
the plan. What is not in there is a function of (settings, seed, step) and is not saved. No pickle.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedModel

from utils.errors import CheckpointError, DataError
from utils.files import MANIFEST, atomic_folder, folder_damage, read_json, to_json
from utils.model.checkpoints import WEIGHTS_FILE, read_card, step_folders
from utils.training.checkpoints.host_copy import HostCopy
from utils.training.checkpoints.shares import SHARDS, read_state
from utils.training.checkpoints.tensor_file import write_tensors
from utils.training.schedule.events import checked_event
from utils.training.step.optimizer import Optimizers

STATE_FILE = "state.json"
OPTIMIZER_FILE = "optimizer.safetensors"
SMALL_FILES_BYTES = 2_000_000
"""Tokenizer, settings, headers: more than they take."""

log = logging.getLogger(__name__)

Count = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, lt=1e12)]


Event = Annotated[dict[str, Any], AfterValidator(checked_event)]


@dataclass
class TrainState:
    """Everything the loop counts. What is not in here is not resumed."""

    step: Count = 0
    """Optimizer steps done."""
    tokens: Count = 0
    """Tokens trained on."""
    best_step: Count | None = None
    """Step of the lowest validation so far."""
    best_bpb: float | None = None
    micro_batch: Count = 0
    """Rows per device and micro-step."""
    settings_hash: str = ""
    """Identity of the run: what decides its bits."""
    elapsed_s: Seconds = 0.0
    recent_losses: list[float] = field(default_factory=list)
    """Losses of the last steps, which tell when one is far too high."""
    environment: dict[str, Any] = field(default_factory=dict)
    """Code, versions and machine of the last process."""
    fast_paths: dict[str, Any] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    """The plan so far."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read state.json of a checkpoint.

        Raises:
            CheckpointError: there is none, or it is of another version.
        """
        if not (folder / STATE_FILE).is_file():
            raise CheckpointError(
                f"{folder} has no {STATE_FILE}: it cannot be resumed; pass a step_N folder or a "
                "run folder of pre-training"
            )
        try:
            values = read_json(folder / STATE_FILE)
            found = values.pop("format", None), set(values)
        except (DataError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{folder / STATE_FILE} is damaged: use another one") from error
        if found != (1, set(cls.__dataclass_fields__)):
            raise CheckpointError(
                f"{folder / STATE_FILE} is of another version: use the version that wrote it"
            )
        try:
            return TypeAdapter(cls).validate_json(json.dumps(values), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise CheckpointError(
                f"{folder / STATE_FILE} is damaged ({place}: {first['msg']}): use another one"
            ) from error


def state_text(state: TrainState) -> str:
    """Return the text of state.json."""
    return to_json({"format": 1, **asdict(state)})


@dataclass(frozen=True)
class Content:
    """What a save takes down at one step."""

    step: int
    weights: Mapping[str, Tensor]
    """Each parameter once: a head that is the embedding is left out."""
    optimizer: Mapping[str, Tensor]
    state: str
    """The text of state.json."""

    @classmethod
    def of(cls, model: nn.Module, optimizers: Optimizers, state: TrainState) -> Self:
        """Return the live tensors; the next step changes them."""
        weights = dict(model.named_parameters())
        return cls(state.step, weights, optimizers.tensors(), state_text(state))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors, by file and name."""
        return {
            f"{file}:{name}": tensor
            for file, group in ((WEIGHTS_FILE, self.weights), (OPTIMIZER_FILE, self.optimizer))
            for name, tensor in group.items()
        }

    def copied(self, host: HostCopy) -> Self:
        """Return the same with the tensors copied into the buffers of `host`."""
        copies = iter(host.take(self.tensors).values())
        weights = {name: next(copies) for name in self.weights}
        return replace(self, weights=weights, optimizer={n: next(copies) for n in self.optimizer})

    @property
    def num_bytes(self) -> int:
        """Size of the checkpoint in bytes, a little rounded up."""
        return SMALL_FILES_BYTES + sum(tensor.nbytes for tensor in self.tensors.values())


def save_checkpoint(folder: Path, content: Content, description: Mapping[str, bytes]) -> None:
    """Write a checkpoint folder, whole or not at all; earlier ones stay as they are on an error.

    `description` holds the files that are the same in each checkpoint of a run, by name.

    Raises:
        LumiError: the disk is full or not writable.
    """
    with atomic_folder(folder, kind="checkpoint", step=content.step) as partial:
        for name, data in {**description, STATE_FILE: content.state.encode()}.items():
            with (partial / name).open("wb") as file:
                file.write(data)
        write_tensors(partial / WEIGHTS_FILE, content.weights, {"format": "pt"})
        write_tensors(partial / OPTIMIZER_FILE, content.optimizer, {})


def check_tokenizer(folder: Path, wanted: str) -> None:
    """Refuse a checkpoint over the ids of another tokenizer than `wanted` (sha256 of the data's).

    Raises:
        CheckpointError: it was trained with another one.
    """
    found = read_card(folder).get("tokenizer_sha256")
    if found not in (None, wanted):
        raise CheckpointError(
            f"{folder} was trained with tokenizer {str(found)[:12]}, the data have {wanted[:12]}: "
            "pass the --data_dir it was trained on, or prepare the new data with --reuse_tokenizer "
            f"--tokenizer_path {folder}"
        )


def load_checkpoint(folder: Path, model: PreTrainedModel, optimizers: Optimizers) -> TrainState:
    """Restore what `save_checkpoint` wrote after every file is checked against its hash.

    Files that the manifest does not name are not opened.

    Raises:
        CheckpointError: a file is missing or changed, or the model has another shape.
    """
    if (folder / STATE_FILE).is_file() and (damage := checkpoint_damage(folder)):
        raise CheckpointError(f"{damage}: use another checkpoint or make it again")
    state = TrainState.read(folder)
    try:
        weights, kept = read_state(folder, model)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} cannot be read ({error}): use another checkpoint"
        ) from error
    known = dict(model.named_parameters())
    for name, tensor in weights.items():
        if name not in known or not _is_like(tensor, known[name]):
            raise CheckpointError(
                f"{folder / WEIGHTS_FILE}: {name} {tuple(tensor.shape)} does not fit this model: "
                "resume with the --config it was trained with"
            )
    if missing := sorted(set(known) - set(weights)):
        raise CheckpointError(
            f"{folder / WEIGHTS_FILE} lacks {missing[0]}: use another checkpoint, or the --config "
            "it was trained with"
        )
    for name, tensor in kept.items():
        parameter = known.get(name.rpartition(":")[0])
        if parameter is not None and not _is_state_of(tensor, parameter):
            raise CheckpointError(
                f"{folder / OPTIMIZER_FILE}: {name} {tuple(tensor.shape)} does not fit this model: "
                "resume with the --config it was trained with"
            )
    optimizers.load(kept)
    model.load_state_dict(weights, strict=False)  # a tied head has no tensor of its own
    return state


def _is_like(tensor: Tensor, parameter: Tensor) -> bool:
    return tensor.shape == parameter.shape and tensor.dtype == parameter.dtype


def _is_state_of(tensor: Tensor, parameter: Tensor) -> bool:
    """Whether an optimizer may keep `tensor` for `parameter`: a number, or one for each part."""
    pairs = zip(tensor.shape[::-1], parameter.shape[::-1], strict=False)
    fits = tensor.ndim <= parameter.ndim and all(mine in (1, theirs) for mine, theirs in pairs)
    return fits and tensor.dtype.is_floating_point


def checkpoint_damage(folder: Path) -> str | None:
    """Return what is wrong with the files of a checkpoint (file and reason), or None."""
    if damage := folder_damage(folder):
        return damage
    listed = read_json(folder / MANIFEST)["files"]
    is_shared = any(Path(name).match(SHARDS) for name in listed)
    needed = (STATE_FILE,) if is_shared else (STATE_FILE, WEIGHTS_FILE, OPTIMIZER_FILE)
    missing = [name for name in needed if name not in listed]
    return f"{folder / MANIFEST}: damaged (it does not name {missing[0]})" if missing else None


def resumable(run: Path) -> Iterator[Path]:
    """Yield the undamaged checkpoints of a run folder, newest first; damaged ones are named."""
    named = [(folder, step_number(folder)) for folder in step_folders(run)]
    others = [(run / name, read_step(run / name)) for name in ("best", "final")]
    for place, step in sorted([*named, *others], key=lambda pair: pair[1], reverse=True):
        if step < 0:
            continue
        if damage := checkpoint_damage(place) or _state_damage(place):
            log.warning("skipping %s", damage)
        elif (place / STATE_FILE).is_file():
            yield place


def _state_damage(folder: Path) -> str | None:
    try:
        TrainState.read(folder)
    except CheckpointError as error:
        return str(error)
    return None


def step_number(folder: Path) -> int:
    """Return N of step_N."""
    return int(folder.name.removeprefix("step_"))


def read_step(folder: Path) -> int:
    """Return the step of a checkpoint by its state.json, -1 when that is damaged."""
    try:
        return int(read_json(folder / STATE_FILE)["step"])
    except (DataError, KeyError, TypeError, ValueError, OverflowError):
        return -1


def link_checkpoint(source: Path, target: Path) -> None:
    """Make `target` the same checkpoint as `source` without writing its bytes again."""
    with atomic_folder(target, kind="checkpoint", step=read_step(source)) as partial:
        for path in source.iterdir():
            if path.name == MANIFEST:
                continue
            try:
                os.link(path, partial / path.name)
            except OSError:
                shutil.copyfile(path, partial / path.name)
