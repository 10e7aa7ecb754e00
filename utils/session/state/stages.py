"""The command of each stage: the numbered scripts and modules with all their flags spelled out.

Everything runs in the working folder, so data/, checkpoints/ and evaluation/results/ are there.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.checkout import CHECKPOINTS, CONFIG, DPO, PRETRAIN, SFT, run_folders
from utils.checkout import SCRIPTS as SCRIPTS_DIR
from utils.config.session import SessionConfig
from utils.config.variables import to_flags
from utils.errors import CheckpointError
from utils.run_folder import RunFolder

SCRIPTS = {
    "prepare": "01_prepare_data.py",
    "pretrain": "02_pretrain.py",
    "sft": "03_sft.py",
    "dpo": "04_dpo.py",
    "evaluate": "05_evaluate.py",
}
MODULES = {
    "samples": "utils.data.builtin.practice_sets",
    "check": "utils.planning.check_env",
    "preflight": "utils.preflight.runner",
    "architecture": "utils.planning.architectures",
    "serve": "utils.session.serve_check",
    "answers": "utils.session.report.answers",
}
ARCHITECTURES = 4
"""Model configurations that the architecture stage measures, to share its box among them."""


@dataclass(frozen=True)
class StageContext:
    """What the commands of one session have in common; paths are absolute or below work_dir."""

    cfg: SessionConfig
    folder: Path
    """The session's folder."""
    settings: Mapping[str, Mapping[str, Any]]
    """Further settings of each stage; they come last and therefore win."""
    corpus_settings: Mapping[str, Any] = field(default_factory=dict)
    """What stage 01 is called with."""
    corpus_dir: Path | None = None
    """Prepared data."""
    model_name: str | None = None
    """Name of the model that is pre-trained."""

    @property
    def sft_dataset(self) -> Path:
        """Conversations for SFT: the user's, the session's practice set, or data/."""
        return self._dataset(self.cfg.sft_dataset, "sft_dataset.json")

    @property
    def dpo_dataset(self) -> Path:
        """Preference pairs for DPO, found the same way."""
        return self._dataset(self.cfg.dpo_dataset, "dpo_dataset.json")

    def _dataset(self, own: Path | None, name: str) -> Path:
        if own is not None:
            return own.expanduser().absolute()
        return self.folder / "data" / name if "samples" in self.cfg.stages else Path("data") / name

    @property
    def eval_data_dir(self) -> Path | None:
        """Local evaluation files, where the user named some."""
        return self.cfg.eval_data_dir and self.cfg.eval_data_dir.expanduser().absolute()

    @property
    def pretrain_dir(self) -> Path:
        """Run folder of pre-training."""
        return PRETRAIN / (self.model_name or "tiny")

    @property
    def model_path(self) -> Path:
        """The newest model of the session, or the one to evaluate.

        Raises:
            CheckpointError: the session trains none and none is there.
        """
        for stage, path in (("dpo", DPO), ("sft", SFT), ("pretrain", self.pretrain_dir)):
            if stage in self.cfg.stages:
                return path
        if self.cfg.model_path is not None:
            return self.cfg.model_path.absolute()
        for folder in run_folders(self.cfg.work_dir):
            if RunFolder.is_in(folder):
                return folder.relative_to(self.cfg.work_dir)
        raise CheckpointError(
            "checkpoints/ holds no model: train one (make session-quick) or pass MODEL_PATH"
        )


def stage_command(stage: str, context: StageContext, minutes: float | None) -> list[str]:
    """Return the command line of a stage that has `minutes` for itself (None: no box)."""
    script = SCRIPTS.get(stage)
    command = [str(SCRIPTS_DIR / script)] if script else ["-m", MODULES[stage]]
    values = _SETTINGS[stage](context) if stage in _SETTINGS else {}
    own = dict(context.settings.get(stage, {}))
    if stage in ("pretrain", "sft", "dpo", "evaluate", "answers") and minutes is not None:
        own = {"max_minutes": round(minutes, 4)} | own
    if stage == "architecture" and minutes is not None:
        own["max_seconds"] = round(60 * minutes / ARCHITECTURES, 1)
    return [sys.executable, *command, *to_flags(values), *to_flags(own)]


_SETTINGS: dict[str, Callable[[StageContext], dict[str, Any]]] = {
    "prepare": lambda context: {**context.corpus_settings, "eval_data_dir": context.eval_data_dir},
    "samples": lambda context: {"output_dir": context.folder / "data", "seed": context.cfg.seed},
    "pretrain": lambda context: {
        "config": context.folder / "pretrain_config.json",
        "data_dir": context.corpus_dir,
        "seed": context.cfg.seed,
    },
    "sft": lambda context: {
        "config": CONFIG / "sft.json",
        "model_path": context.pretrain_dir,
        "dataset_path": context.sft_dataset,
        "eval_data_dir": context.eval_data_dir,
        "seed": context.cfg.seed,
    },
    "dpo": lambda context: {
        "config": CONFIG / "dpo.json",
        "model_path": SFT,
        "dataset_path": context.dpo_dataset,
        "eval_data_dir": context.eval_data_dir,
        "seed": context.cfg.seed,
    },
    "evaluate": lambda context: {
        "config": CONFIG / "evaluate.json",
        "model_path": context.model_path,
        "corpus_dir": context.corpus_dir,
        "data_dir": context.eval_data_dir,
        "run_name": context.folder.name,
        "seed": context.cfg.seed,
    },
    "answers": lambda context: {
        "model_paths": [CHECKPOINTS / s for s in ("sft", "dpo") if s in context.cfg.stages],
        "output": context.folder / "answers.json",
    },
    "architecture": lambda context: {
        "measure": True,
        "output_path": context.folder / "architectures.json",
    },
    "serve": lambda context: {"model_path": context.model_path, "port": 0},
}
"""What a session sets for its stages; `settings` of the context come after it and win."""
