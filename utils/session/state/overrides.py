"""Settings of single stages from the environment: PRETRAIN_LEARNING_RATE=1e-3 and the like.

Make exports the variables of its command line, so both `export` and `make VAR=value` arrive here.
Plain names (BATCH_SIZE) never reach a session: nobody could tell for which stage they are meant.
"""

import difflib
from collections.abc import Mapping
from typing import Any

from utils.config.base import Section
from utils.config.kinds import BySession, mark_of
from utils.config.variables import COMMANDS, PREFIXES, is_list
from utils.errors import ConfigError

STAGE_CONFIGS = {
    name: COMMANDS[name] for name in ("prepare", "samples", "pretrain", "sft", "dpo", "evaluate")
}
"""Stages that a session gives settings."""
OWN_VARIABLES = frozenset({"SFT_DATASET", "DPO_DATASET"})
"""Variables with a stage's prefix that are settings of the session itself."""


def stage_overrides(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the settings of each stage that variables with its prefix hold.

    Raises:
        ConfigError: an unknown setting, a wrong value, or one that the session itself decides.
    """
    overrides: dict[str, dict[str, Any]] = {}
    for stage in PREFIXES:
        prefix = f"{stage.upper()}_"
        given = {
            name: value
            for name, value in sorted(environ.items())
            if name.startswith(prefix) and name not in OWN_VARIABLES and value
        }
        values = {name.removeprefix(prefix).lower(): value for name, value in given.items()}
        overrides[stage] = check_flags(stage, values, prefix)
    return {stage: values for stage, values in overrides.items() if values}


def check_flags(stage: str, values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return `values` (setting -> text or value) when stage's settings know and accept them.

    Raises:
        ConfigError: one line that names the variable (`prefix` + name) or setting.
    """
    config = STAGE_CONFIGS.get(stage)
    if config is None:
        raise ConfigError(f"stage {stage} takes no settings in a session: remove {values}")
    typed: dict[str, Any] = {}
    for name, value in values.items():
        shown = f"{prefix}{name.upper()}" if prefix else f"{stage}.{name}"
        if name not in config.model_fields:
            raise ConfigError(f"{shown}: no setting of stage {stage}: {_nearest(name, config)}")
        field = config.model_fields[name]
        if decided := mark_of(field.metadata, BySession):
            raise ConfigError(f"{shown}={value}: a session decides that: {decided.instead}")
        typed[name] = value.split() if isinstance(value, str) and is_list(field) else value
    if typed:
        config.build(typed, f"settings of stage {stage}")
    return typed


def _nearest(name: str, config: type[Section]) -> str:
    match = difflib.get_close_matches(name, list(config.model_fields), n=1)
    return f"did you mean {match[0]!r}?" if match else "see the script's --help"


def to_flags(values: Mapping[str, Any]) -> list[str]:
    """Return settings as command-line flags: {"seed": 1, "bf16": False} -> --seed 1 --bf16 False.

    Settings that are None are left out.
    """
    flags: list[str] = []
    for name, value in values.items():
        if isinstance(value, (list, tuple)):
            flags += [f"--{name}", *map(str, value)]
        elif value is not None:
            flags += [f"--{name}", str(value)]
    return flags
