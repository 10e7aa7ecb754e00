"""Checkpoints of pre-training: a Hugging Face folder plus the trainer's own small state.

optimizer.safetensors holds the optimizer's tensors by parameter name, state.json the counters and
the plan. What is not in there is a function of (settings, seed, step) and is not saved. No pickle.
"""

import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

from utils.disk import free_bytes
from utils.errors import BudgetError, CheckpointError, DataError
from utils.files import (
    MANIFEST,
    atomic_folder,
    folder_damage,
    read_json,
    verify_folder,
    write_json,
)
from utils.model.checkpoints import read_card, save_model_files, step_folders
from utils.training.optimizer import Optimizers
from utils.training.shards import read_state

STATE_FILE = "state.json"
OPTIMIZER_FILE = "optimizer.safetensors"
WEIGHTS_FILE = "model.safetensors"

log = logging.getLogger(__name__)


@dataclass
class TrainState:
    """Everything the loop counts. What is not in here is not resumed."""

    step: int = 0
    """Optimizer steps done."""
    tokens: int = 0
    """Tokens trained on."""
    best_step: int | None = None
    """Step of the lowest validation so far."""
    best_bpb: float | None = None
    micro_batch: int = 0
    """Rows per device and micro-step."""
    settings_hash: str = ""
    """Identity of the run: what decides its bits."""
    elapsed_s: float = 0.0
    fast_paths: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
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
        values = read_json(folder / STATE_FILE)
        if values.pop("format", None) != 1 or set(values) != set(cls.__dataclass_fields__):
            raise CheckpointError(
                f"{folder / STATE_FILE} is of another version: use the version that wrote it"
            )
        return cls(**values)


def save_checkpoint(
    folder: Path,
    model: PreTrainedModel,
    optimizers: Optimizers,
    state: TrainState,
    *,
    tokenizer_dir: Path,
    card: dict[str, Any],
) -> None:
    """Write a checkpoint folder, whole or not at all; earlier ones stay as they are on an error.

    Raises:
        BudgetError: there is not enough free space (checked before anything is written).
        LumiError: the disk is full or not writable.
    """
    tensors = {name: value.contiguous() for name, value in optimizers.tensors().items()}
    check_space(folder, [*model.parameters(), *tensors.values()])
    with atomic_folder(folder, kind="checkpoint", step=state.step) as partial:
        save_model_files(model, partial, tokenizer_dir=tokenizer_dir, card=card)
        save_file(tensors, partial / OPTIMIZER_FILE)
        write_json(partial / STATE_FILE, {"format": 1, **asdict(state)})


def check_space(folder: Path, tensors: list[torch.Tensor]) -> None:
    """Refuse to begin a save that does not fit.

    Raises:
        BudgetError: the tensors need more than is free.
    """
    needed = 2_000_000 + sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if (free := free_bytes(folder)) < 1.05 * needed:
        raise BudgetError(
            f"a checkpoint needs {needed / 1e6:.0f} MB, {folder.parent} has {free / 1e6:.0f} MB "
            "free: free some space and continue with `make resume`"
        )


def check_tokenizer(folder: Path, wanted: str) -> None:
    """Refuse a checkpoint over the ids of another tokenizer than `wanted` (sha256 of the data's).

    Raises:
        CheckpointError: it was trained with another one.
    """
    found = read_card(folder).get("tokenizer_sha256")
    if found not in (None, wanted):
        raise CheckpointError(
            f"{folder} was trained with tokenizer {found[:12]}, the data have {wanted[:12]}: pass "
            "the --data_dir it was trained on, or prepare the new data with --reuse_tokenizer "
            f"--tokenizer_path {folder}"
        )


def load_checkpoint(folder: Path, model: PreTrainedModel, optimizers: Optimizers) -> TrainState:
    """Restore what `save_checkpoint` wrote after every file is checked against its hash.

    Raises:
        CheckpointError: a file is missing or changed, or the model has another shape.
    """
    verify_folder(folder)
    state = TrainState.read(folder)
    weights, moments = read_state(folder, model)
    known = model.state_dict()
    for name, tensor in weights.items():
        if name not in known or known[name].shape != tensor.shape:
            raise CheckpointError(
                f"{folder / WEIGHTS_FILE}: {name} {tuple(tensor.shape)} does not fit this model: "
                "resume with the --config it was trained with"
            )
    missing, _ = model.load_state_dict(weights, strict=False)
    if set(missing) - set(getattr(model, "_tied_weights_keys", None) or ()):
        raise CheckpointError(f"{folder / WEIGHTS_FILE} lacks {missing[0]}: use another checkpoint")
    optimizers.load(moments)
    return state


def resumable(run: Path) -> Iterator[Path]:
    """Yield the undamaged checkpoints of a run folder, newest first; damaged ones are named."""
    places = [*step_folders(run), run / "best", run / "final"]
    found = [(place, read_step(place)) for place in places if (place / STATE_FILE).is_file()]
    for place, _ in sorted(found, key=lambda pair: pair[1], reverse=True):
        if damage := folder_damage(place):
            log.warning("skipping %s", damage)
            continue
        yield place


def read_step(folder: Path) -> int:
    """Return the step of a checkpoint by its state.json, -1 when that is damaged."""
    try:
        return int(read_json(folder / STATE_FILE)["step"])
    except (DataError, KeyError, TypeError, ValueError):
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


def _rename_over(folder: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    folder.rename(target)


def read_number(folder: Path) -> int:
    """Return N of step_N."""
    return int(folder.name.removeprefix("step_"))


def remove_old_steps(run: Path, keep: int, newest: int) -> None:
    """Remove all but the last `keep` step_N folders up to step `newest`.

    Later ones belong to a branch that was left by going back to an earlier step: they are kept
    under another name, so that nothing resumes from them by itself.
    """
    steps = step_folders(run)
    for folder in [folder for folder in steps if read_number(folder) > newest]:
        log.warning("%s is of a run that was left: renamed to left-%s", folder, folder.name)
        _rename_over(folder, folder.with_name(f"left-{folder.name}"))
    for folder in [folder for folder in steps if read_number(folder) <= newest][:-keep]:
        doomed = folder.with_name(f".old-{folder.name}")
        folder.rename(doomed)
        shutil.rmtree(doomed)
