"""What `make preflight` can check here: each part with its proofs, or with what is missing."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from utils.checkout import run_folders
from utils.config.model import ModelConfig
from utils.config.preflight import PreflightConfig
from utils.data.tokens.shards import newest_dataset, read_dataset
from utils.errors import CheckpointError, DataError, LumiError
from utils.model.checkpoints import LoadedModel, find_checkpoint, load_model
from utils.planning.sizes import read_size
from utils.preflight import proofs_by_stage as stages
from utils.preflight.result import CheckResult


@dataclass(frozen=True)
class Part:
    """Proofs that belong together."""

    name: str
    missing: str
    """What is not there, or "" when the proofs can run."""
    proofs: Callable[[], Iterator[CheckResult]]

    def results(self) -> Iterator[CheckResult]:
        """Yield the outcome of each proof; an input that cannot be read is a failure too."""
        if self.missing:
            return
        try:
            yield from self.proofs()
        except LumiError as error:
            what, _, remedy = str(error).partition(": ")
            yield CheckResult("input", what, "to be readable", False, remedy or "correct it")


def parts(cfg: PreflightConfig) -> list[Part]:
    """Return all parts; those without their input say what is missing.

    Raises:
        LumiError: a folder that was named in the settings is not there, or the model
            configuration is wrong.
    """
    data_dir, no_data = _data_dir(cfg)
    model = architecture(cfg.model_config_path, data_dir)
    checkpoint, no_checkpoint = _checkpoint(cfg)

    @functools.cache
    def loaded() -> LoadedModel:
        """Return the checkpoint, or a fresh small model that lays out conversations as it would."""
        if checkpoint is None:
            return stages.fresh_chat_model(model, _there(data_dir), cfg.prompt_template)
        found = load_model(checkpoint)
        return stages.with_template(found, found.card.get("template") or cfg.prompt_template)

    no_model = "" if checkpoint or data_dir else f"neither checkpoint nor data ({no_data})"
    sft, dpo = cfg.sft_dataset_path, cfg.dpo_dataset_path
    no_sft = no_model or _absent(sft)
    no_dpo = no_model or _absent(dpo)
    return [
        Part("training signal", "", lambda: stages.signal_proofs(model)),
        Part("prepared data", no_data, lambda: stages.data_proofs(model, _there(data_dir))),
        Part("checkpoint", no_checkpoint, lambda: stages.checkpoint_proofs(loaded())),
        Part("conversations", no_sft, lambda: stages.sft_proofs(loaded(), sft, None)),
        Part("preferences", no_dpo, lambda: stages.dpo_proofs(loaded(), dpo, None)),
    ]


def architecture(path: Path, data_dir: Path | None) -> ModelConfig:
    """Return the model of a configuration file, with the vocabulary of the data where there is one.

    Raises:
        LumiError: the file is missing or wrong, or the data have no readable manifest.
    """
    model = read_size(path).model.model_dump()
    if data_dir is not None:
        model["vocab_size"] = read_dataset(data_dir)["vocab_size"]
    return ModelConfig(**model)


def _data_dir(cfg: PreflightConfig) -> tuple[Path | None, str]:
    """Return (folder, "") or (None, why not)."""
    try:
        return cfg.data_dir or newest_dataset(), ""
    except DataError as error:
        return None, str(error)


def _checkpoint(cfg: PreflightConfig) -> tuple[Path | None, str]:
    """Return (model folder, "") or (None, why not)."""
    if cfg.model_path is not None:
        return find_checkpoint(cfg.model_path), ""
    for run in run_folders():
        with contextlib.suppress(CheckpointError):  # the next folder may hold one
            return find_checkpoint(run), ""
    return None, "no checkpoint below checkpoints: run `make pretrain-tiny`, or pass --model_path"


def _absent(path: Path) -> str:
    return "" if path.is_file() else f"{path} not found: run `make create-sample-datasets`"


def _there(path: Path | None) -> Path:
    assert path is not None, "a part without its input must not run"
    return path
