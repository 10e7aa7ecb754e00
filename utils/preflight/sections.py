"""What `make preflight` can check here: each part with its proofs, or with what is missing."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from utils.checkout import run_folders
from utils.config.model import ModelConfig
from utils.config.preflight import PreflightConfig
from utils.config.pretrain import PretrainConfig
from utils.data.tokens.shards import newest_dataset, read_dataset
from utils.errors import CheckpointError, DataError, LumiError
from utils.model.checkpoints import LoadedModel, find_checkpoint, load_model
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
    checkpoint, no_checkpoint = _checkpoint(cfg)
    model = architecture(cfg.model_config_path, data_dir)
    # One model serves all parts; it is made when the first of them runs.
    kept: list[LoadedModel] = []

    def loaded() -> LoadedModel:
        if not kept:
            kept.append(_chat_model(cfg, model, checkpoint, data_dir))
        return kept[0]

    no_model = "" if checkpoint or data_dir else f"neither checkpoint nor data ({no_data})"
    no_sft = no_model or _absent(cfg.sft_dataset_path)
    no_dpo = no_model or _absent(cfg.dpo_dataset_path)
    return [
        Part("training signal", "", lambda: stages.signal_proofs(model)),
        Part("prepared data", no_data, lambda: stages.data_proofs(model, _there(data_dir))),
        Part("checkpoint", no_checkpoint, lambda: stages.checkpoint_proofs(loaded())),
        Part(
            "conversations", no_sft, lambda: stages.sft_proofs(loaded(), cfg.sft_dataset_path, None)
        ),
        Part(
            "preferences", no_dpo, lambda: stages.dpo_proofs(loaded(), cfg.dpo_dataset_path, None)
        ),
    ]


def architecture(path: Path, data_dir: Path | None) -> ModelConfig:
    """Return the model of a configuration file, with the vocabulary of the data where there is one.

    Raises:
        LumiError: the file is missing or wrong, or the data have no readable manifest.
    """
    values = PretrainConfig.build(PretrainConfig.read_file(path), str(path)).model_dump()
    model = {key: values[key] for key in ModelConfig.model_fields}
    if data_dir is not None:
        model["vocab_size"] = read_dataset(data_dir)["vocab_size"]
    return ModelConfig(**model)


def _data_dir(cfg: PreflightConfig) -> tuple[Path | None, str]:
    """Return (folder, "") or (None, why not)."""
    if cfg.data_dir is not None:
        read_dataset(cfg.data_dir)
        return cfg.data_dir, ""
    try:
        return newest_dataset(), ""
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


def _chat_model(
    cfg: PreflightConfig, model: ModelConfig, checkpoint: Path | None, data_dir: Path | None
) -> LoadedModel:
    """Return the checkpoint, or a fresh small model that lays out conversations as it would."""
    if checkpoint is None:
        return stages.fresh_chat_model(model, _there(data_dir), cfg.prompt_template)
    loaded = load_model(checkpoint)
    return stages.with_template(loaded, loaded.card.get("template") or cfg.prompt_template)


def _absent(path: Path) -> str:
    return "" if path.is_file() else f"{path} not found: run `make create-sample-datasets`"


def _there(path: Path | None) -> Path:
    assert path is not None, "a part without its input must not run"
    return path
