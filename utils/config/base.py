"""Typed stage settings: defaults < `--config` files < command-line flags.

A stage declares its settings once, as a `StageConfig` subclass. The field name is the JSON key and
the flag (`batch_size` -> `--batch_size`), its docstring is the help text, and pydantic rejects
unknown keys, wrong types and out-of-range values before any heavy import happens.
"""

import argparse
import difflib
import json
import sys
import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, Self, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from utils.config.kinds import Kind, Reach, mark_of
from utils.errors import ConfigError


class UsageError(ConfigError):
    """The command line itself is wrong: an unknown flag or a flag without its value (exit 2)."""


class Section(BaseModel):
    """An immutable group of settings that rejects keys it does not know."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=()
    )

    @classmethod
    def names(cls, *kinds: Kind) -> list[str]:
        """Return the names of the settings that are of one of these kinds, in their order."""
        return [
            name
            for name, field in cls.model_fields.items()
            if mark_of(field.metadata, Kind) in kinds
        ]

    def resolved(self, *kinds: Kind) -> dict[str, Any]:
        """Return the settings (those of `kinds`, or all) as the JSON values that are recorded."""
        values = self.model_dump(mode="json")
        return {name: values[name] for name in self.names(*kinds)} if kinds else values


class StageConfig(Section):
    """Settings of one numbered script."""

    ignored_keys: ClassVar[frozenset[str]] = frozenset()
    """Keys a `--config` file may hold for another stage's sake."""

    @classmethod
    def from_cli(cls, argv: Sequence[str] | None = None) -> Self:
        """Build the settings from `--config FILE...` and flags; flags win, later files win.

        Raises:
            UsageError: an unknown flag, or a flag without a value.
            ConfigError: a file cannot be read, or a value does not validate.
        """
        flags = _parser(cls).parse_strictly(argv)
        values: dict[str, Any] = {}
        for path in flags.pop("config"):
            values |= cls.read_file(path)
        return cls.build(values | flags, "command line" if flags else "settings")

    @classmethod
    def read_file(cls, path: Path) -> dict[str, Any]:
        """Return the settings of one file, its unknown keys refused with the file's name."""
        values = read_config_file(path)
        values = {key: value for key, value in values.items() if key not in cls.ignored_keys}
        for key in values:
            if key not in cls.model_fields:
                raise ConfigError(f"{path}: unknown key {key!r}: {nearest(key, cls.model_fields)}")
        return values

    @classmethod
    def build(cls, values: dict[str, Any], source: str = "settings") -> Self:
        """Validate `values`; `source` names where they come from in the message.

        Raises:
            ConfigError: one line that lists every problem with its value.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"invalid {source}: {_explain(error)}") from error


def read_config_file(path: Path) -> dict[str, Any]:
    """Read a JSON or YAML mapping; keys that start with `_` are comments.

    Raises:
        ConfigError: the file is missing, is not JSON/YAML, or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        is_yaml = path.suffix in {".yaml", ".yml"}
        values = yaml.safe_load(text) if is_yaml else json.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read config file {path}: {_reason(error)}") from error
    except json.JSONDecodeError as error:
        place = f"{path}:{error.lineno}:{error.colno}"
        raise ConfigError(f"{place}: not valid JSON ({error.msg}): correct that line") from error
    except yaml.YAMLError as error:
        first_line = " ".join(str(error).split())
        raise ConfigError(f"{path}: not valid YAML ({first_line}): correct that line") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, found {type(values).__name__}")
    return {key: value for key, value in values.items() if not str(key).startswith("_")}


def _reason(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return getattr(error, "strerror", None) or "not UTF-8 text"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `did you mean X?`, or the advice to look at --help."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean {match[0]!r}?" if match else "see --help for the known ones"


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are one line with the nearest flag instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}: see {self.prog} --help")

    def parse_strictly(self, argv: Sequence[str] | None) -> dict[str, Any]:
        """Return the flags that were given; an unknown one is named with its nearest neighbour."""
        parsed, unknown = self.parse_known_args(argv)
        if unknown:
            wrong = unknown[0].split("=")[0]
            known = [option for action in self._actions for option in action.option_strings]
            raise UsageError(f"{self.prog}: unknown argument {wrong}: {nearest(wrong, known)}")
        return vars(parsed)


def _parser(config: type[StageConfig]) -> _Parser:
    """One flag per field; a flag that is not given leaves no trace in the namespace."""
    parser = _Parser(
        description=config.__doc__,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        prog=Path(sys.argv[0]).name,
    )
    parser.add_argument(
        "--config",
        "--config_path",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="JSON or YAML file with settings; may be given several times, the later one wins",
    )
    for name, field in config.model_fields.items():
        if mark_of(field.metadata, Reach) is Reach.FILE:
            continue
        default = field.get_default(call_default_factory=True)
        text = f"{field.description or ''} (default: {default})".replace("%", "%%")
        _add_flag(parser, name, field.annotation, text)
    return parser


def _add_flag(parser: argparse.ArgumentParser, name: str, annotation: Any, text: str) -> None:
    annotation = _without_none(annotation)
    if annotation is bool:
        # Bare, or with a value, so that both `--use_minhash` and `--use_minhash false` work.
        parser.add_argument(f"--{name}", nargs="?", const=True, metavar="BOOL", help=text)
        parser.add_argument(
            f"--no_{name}", action="store_const", const=False, dest=name, help=f"not --{name}"
        )
    elif get_origin(annotation) is tuple:
        parser.add_argument(f"--{name}", nargs="+", metavar="VALUE", help=text)
    elif get_origin(annotation) is Literal:
        names = "|".join(map(str, get_args(annotation)))
        parser.add_argument(f"--{name}", metavar=names, help=text)
    else:
        parser.add_argument(f"--{name}", metavar="VALUE", help=text)


def _without_none(annotation: Any) -> Any:
    """Return T for `T | None`, else the annotation itself."""
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        return kinds[0] if len(kinds) == 1 else annotation
    return annotation


def _explain(error: ValidationError) -> str:
    """Turn pydantic's report into `batch_size = 0: Input should be greater than 0; ...`."""
    problems = []
    for problem in error.errors():
        where = ".".join(map(str, problem["loc"]))
        value = f" = {problem['input']!r}" if where and problem["type"] != "missing" else ""
        message = problem["msg"].removeprefix("Value error, ")
        problems.append(f"{where}{value}: {message}" if where else message)
    return "; ".join(problems)
