"""Finds, verifies, loads and saves model folders; every stage reads checkpoints through here.

A model folder is a plain Hugging Face folder plus lumi.json (what made it). Trainer state is the
business of `utils.training.checkpoints.state`.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from utils.chat.templates import CHATML, TEMPLATES, Template, TextEncoder
from utils.disk import disk_errors
from utils.errors import CheckpointError, DataError
from utils.files import (
    MANIFEST,
    folder_damage,
    is_moved_aside,
    read_json,
    remove_folder,
    verify_folder,
    write_json,
)
from utils.tokenizers.transformers_files import save_hf_tokenizer

WEIGHTS_FILE = "model.safetensors"
LUMI_FILE = "lumi.json"
"""Beside each checkpoint: {"format", "stage", "template", "tokenizer_sha256", "settings", ...}."""

PLAIN: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""Nothing is fetched, and nothing that lies in a folder is run."""

log = logging.getLogger(__name__)
transformers_logging.disable_progress_bar()


def find_checkpoint(path: Path) -> Path:
    """Return the model folder that `path` means: itself, its final/, best/ or newest good step_N.

    Raises:
        CheckpointError: there is none; the message says what to run.
    """
    if (path / "config.json").is_file():
        return path
    if not path.exists():
        runs = sorted(file.parents[1] for file in path.parent.glob("*/final/config.json"))
        there = ", ".join(str(run) for run in runs if not is_moved_aside(run))
        found = f" (there is {there})" if there else ""
        raise CheckpointError(
            f"no checkpoint at {path}: train one first, or pass --model_path{found}"
        )
    for name in ("final", "best"):
        if (path / name / "config.json").is_file():
            return path / name
    for step in reversed(step_folders(path)):
        if not (step / "config.json").is_file():  # in shares of several processes
            continue
        if damage := folder_damage(step):
            log.warning("skipping %s", damage)
            continue
        return step
    raise CheckpointError(f"{path} holds no checkpoint (no config.json, final/, best/ or step_N)")


def step_folders(run: Path) -> list[Path]:
    """Return the step_N folders of a run, oldest first."""
    steps = [path for path in run.glob("step_*") if path.name[5:].isdigit() and path.is_dir()]
    return sorted(steps, key=lambda path: int(path.name[5:]))


def read_card(folder: Path) -> dict[str, Any]:
    """Return lumi.json of a model folder, or an empty dict for a folder made elsewhere.

    Raises:
        CheckpointError: it is damaged.
    """
    if not (folder / LUMI_FILE).is_file():
        return {}
    try:
        card = read_json(folder / LUMI_FILE)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(card, dict) or not isinstance(card.get("settings", {}), dict):
        raise CheckpointError(f"{folder / LUMI_FILE} is damaged: use another checkpoint")
    return card


def template_of(card: Mapping[str, Any]) -> Template:
    """Return the conversation layout that lumi.json names (chatml when it names none)."""
    return TEMPLATES.get(card.get("template") or "", CHATML)


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for scoring and generation, with all that belongs to it."""

    model: PreTrainedModel
    tokenizer: Any
    """The transformers tokenizer."""
    folder: Path
    card: dict[str, Any]
    """Content of lumi.json."""

    @property
    def encoder(self) -> TextEncoder:
        """The tokenizer for plain user text."""
        return TextEncoder(self.tokenizer)

    @property
    def template(self) -> Template:
        """The conversation layout it was fine-tuned with (chatml when it was not)."""
        return template_of(self.card)

    @property
    def context_length(self) -> int:
        """Longest sequence in tokens."""
        return int(self.model.config.max_position_embeddings)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def prefix_id(self) -> int:
        """The token in front of a text scored from its beginning (BOS, else EOS)."""
        bos = self.tokenizer.bos_token_id
        return bos if bos is not None else self.tokenizer.eos_token_id


def load_model(
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    verify: bool = True,
) -> LoadedModel:
    """Load the checkpoint that `path` means, in eval mode.

    Raises:
        CheckpointError: there is none, a file has changed, or transformers cannot read it.
    """
    folder = find_checkpoint(path)
    if verify and (folder / MANIFEST).is_file():
        verify_folder(folder)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, **PLAIN
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, **PLAIN)
    except Exception as error:  # a damaged or hostile file leads to any of them
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{folder} cannot be loaded ({reason}): use another one") from error
    model.eval()
    model.to(torch.device(device) if device is not None else best_device())  # pyright: ignore[reportArgumentType]
    return LoadedModel(model, tokenizer, folder, read_card(folder))


def best_device(cpu: bool = False) -> torch.device:
    """Return cuda, mps or cpu, in this order of preference; cpu when asked for."""
    if not cpu and torch.cuda.is_available():
        return torch.device("cuda")
    if not cpu and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def save_model_files(
    model: PreTrainedModel,
    folder: Path,
    *,
    tokenizer_dir: Path,
    card: dict[str, Any],
    state_dict: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write a model folder (inside `atomic_folder`): weights, tokenizer, template, lumi.json.

    `card` needs "stage" and "tokenizer_sha256"; with "template" the chat template is written and
    its stop token becomes a stop id of generation.
    """
    template = TEMPLATES.get(card.get("template") or "")
    save_hf_tokenizer(tokenizer_dir, folder, template.jinja if template else None)
    if template is not None and model.generation_config is not None:
        stop = TextEncoder(AutoTokenizer.from_pretrained(folder)).control_id(template.stop)
        model.generation_config.eos_token_id = sorted({stop, model.config.eos_token_id})
    model.save_pretrained(folder, state_dict=state_dict)
    write_json(folder / LUMI_FILE, {"format": 1, **card})


def description_files(
    model: PreTrainedModel, scratch: Path, *, tokenizer_dir: Path, card: dict[str, Any]
) -> dict[str, bytes]:
    """Return what `save_model_files` writes beside the weights, by name; `scratch` is removed."""
    with disk_errors(scratch):
        try:
            save_model_files(model, scratch, tokenizer_dir=tokenizer_dir, card=card, state_dict={})
            files = [path for path in sorted(scratch.iterdir()) if path.name != WEIGHTS_FILE]
            return {path.name: path.read_bytes() for path in files}
        finally:
            remove_folder(scratch)
