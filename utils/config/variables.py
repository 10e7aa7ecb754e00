"""Turns Make variables into the flags of a command, and into settings of a session's stages.

The Makefile asks `python -m utils.config.variables COMMAND NAME=VALUE...` with what stands on its
command line and puts the answer, `--batch_size 8`, behind the script. The settings themselves say
which variables they take (`utils.config.kinds`). Values are only passed on: the script judges them.

A session takes the settings of single stages from PRETRAIN_LEARNING_RATE=1e-3 and the like, which
it judges before it starts. Plain names (BATCH_SIZE) never reach it: nobody could tell for which
stage they are meant.
"""

import difflib
import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_origin

from pydantic.fields import FieldInfo

from utils.config.base import StageConfig, nearest
from utils.config.dpo import DPOConfig
from utils.config.evaluate import EvaluateConfig
from utils.config.kinds import BySession, Reach, Variable, mark_of
from utils.config.machine import PlanConfig
from utils.config.preflight import PreflightConfig
from utils.config.prepare import PrepareConfig, SampleConfig
from utils.config.pretrain import PretrainConfig
from utils.config.prove_resume import ProveResumeConfig
from utils.config.serve import ServeConfig
from utils.config.session import PipelineConfig, ResumeConfig, SessionConfig
from utils.config.sft import SFTConfig
from utils.errors import ConfigError

COMMANDS: dict[str, type[StageConfig]] = {
    "prepare": PrepareConfig,
    "samples": SampleConfig,
    "pretrain": PretrainConfig,
    "sft": SFTConfig,
    "dpo": DPOConfig,
    "evaluate": EvaluateConfig,
    "serve": ServeConfig,
    "preflight": PreflightConfig,
    "plan": PlanConfig,
    "prove-resume": ProveResumeConfig,
    "session": SessionConfig,
    "pipeline": PipelineConfig,
    "resume": ResumeConfig,
}
"""What the Makefile calls a command, and its settings."""
STAGE_CONFIGS = {
    name: COMMANDS[name] for name in ("prepare", "samples", "pretrain", "sft", "dpo", "evaluate")
}
"""Stages that a session gives settings."""
PREFIXES = ("pretrain", "sft", "dpo")
"""Stages whose settings a session takes from variables such as PRETRAIN_LEARNING_RATE."""
OWN_VARIABLES = frozenset({"SFT_DATASET", "DPO_DATASET"})
"""Variables with a stage's prefix that are settings of the session itself."""
MAKEFILE = Path(__file__).resolve().parents[2] / "Makefile"
NEAR = 0.85
"""Likeness from which a name on the command line counts as a slip: BATCH_SIZ, LEARNINGRATE."""


def variables_of(config: type[StageConfig]) -> dict[str, str]:
    """Return setting -> Make variable for the settings that take one."""
    return {
        name: _variable(name, field)
        for name, field in config.model_fields.items()
        if mark_of(field.metadata, Reach) not in (Reach.FILE, Reach.FLAG)
    }


def is_list(field: FieldInfo) -> bool:
    """Return whether a setting holds several values, which a variable separates by spaces."""
    return get_origin(field.annotation) is tuple


def flags_of(
    config: type[StageConfig], command_line: Mapping[str, str], environ: Mapping[str, str]
) -> list[str]:
    """Return the flags for all settings that a variable holds; an empty one counts as unset."""
    values: dict[str, str | list[str]] = {}
    for name, variable in variables_of(config).items():
        field = config.model_fields[name]
        is_typed = mark_of(field.metadata, Reach) is Reach.COMMAND_LINE
        value = command_line.get(variable, "" if is_typed else environ.get(variable, ""))
        if value:
            values[name] = value.split() if is_list(field) else value
    return to_flags(values)


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


def known_variables() -> set[str]:
    """Return the variables that settings take or the Makefile names, and a session's prefixed ones.

    The Makefile's words in capitals count, so that its own variables need no list.
    """
    words = re.findall(r"\b[A-Z](?:[A-Z0-9_]*[A-Z0-9])?\b", MAKEFILE.read_text(encoding="utf-8"))
    of_settings = {one for config in COMMANDS.values() for one in variables_of(config).values()}
    prefixed = {f"{stage}_{name}" for stage in PREFIXES for name in COMMANDS[stage].model_fields}
    return {*words, *of_settings, *map(str.upper, prefixed)}


def slips(names: Iterable[str]) -> dict[str, str]:
    """Return name -> nearest known variable for names that are most likely meant as that one."""
    known = known_variables()
    unknown = [name for name in names if name not in known]
    nearest = {name: difflib.get_close_matches(name, sorted(known), 1, NEAR) for name in unknown}
    return {name: match[0] for name, match in nearest.items() if match}


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
    if stage not in STAGE_CONFIGS:
        raise ConfigError(f"stage {stage} takes no settings in a session: remove {values}")
    config = STAGE_CONFIGS[stage]
    known = config.model_fields
    typed: dict[str, Any] = {}
    for name, value in values.items():
        shown = f"{prefix}{name.upper()}" if prefix else f"{stage}.{name}"
        if name not in config.model_fields:
            raise ConfigError(
                f"{shown}: no setting of stage {stage}: {nearest(name, config.model_fields)}"
            )
        field = config.model_fields[name]
        if decided := mark_of(field.metadata, BySession):
            raise ConfigError(f"{shown}={value}: a session decides that: {decided.instead}")
        typed[name] = value.split() if isinstance(value, str) and is_list(known[name]) else value
    if typed:
        config.build(typed, f"settings of stage {stage}")
    return typed


def _variable(name: str, field: FieldInfo) -> str:
    mark = mark_of(field.metadata, Variable)
    return mark.name if mark else name.upper()


def _quoted(word: str) -> str:
    """Return a word as the shell reads it, on one line (make puts it into one)."""
    if "\n" not in word:
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("\n", "\\n")
    return f'"$(printf %b {shlex.quote(escaped)})"'


def main(argv: Sequence[str]) -> int:
    """Write the flags, or the variable that was mistyped."""
    command, *given = argv
    command_line = dict(one.split("=", 1) for one in given)
    wrong = slips(command_line)
    for name, meant in wrong.items():
        sys.stderr.write(f"unknown variable {name}: did you mean {meant}?\n")
    if wrong:
        return 2
    flags = flags_of(COMMANDS[command], command_line, os.environ)
    sys.stdout.write(" ".join(map(_quoted, flags)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
