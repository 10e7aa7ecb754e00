"""What a setting is: marks in its type, from which every list of settings follows.

    logging_steps: Manner[PositiveInt] = 50

Each setting of a stage that a session can run has one `Kind`; a test refuses one without. Where
a value may come from (`Reach`), its Make variable and what a session says to it are marks too.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Annotated, TypeVar

T = TypeVar("T")
M = TypeVar("M")


class Kind(Enum):
    """How a setting counts when it is asked whether two results are the same."""

    SHAPING = "its value shapes the result: another value makes another one"
    INDIRECT = "what it stands for shapes the result, and is hashed in its place"
    MANNER = "how, when and where the result is made, never what comes out"


class Reach(Enum):
    """From where a value may come; without this mark from anywhere."""

    FILE = "a --config file only"
    FLAG = "a file or a flag, but no Make variable"
    COMMAND_LINE = "a Make variable too, if it is on make's command line: shells export the name"


@dataclass(frozen=True)
class Variable:
    """The Make variable of a setting, where that is not its name in capitals."""

    name: str


@dataclass(frozen=True)
class BySession:
    """A session decides this setting for its stages."""

    instead: str
    """What to use instead."""


Shaping = Annotated[T, Kind.SHAPING]
Indirect = Annotated[T, Kind.INDIRECT]
Manner = Annotated[T, Kind.MANNER]
FileOnly = Annotated[T, Reach.FILE]
NoVariable = Annotated[T, Reach.FLAG]
CommandLine = Annotated[T, Reach.COMMAND_LINE]

TimeBox = Manner[Annotated[T, BySession("SESSION_MINUTES sizes the whole time box")]]
OutputFolder = Manner[
    Annotated[T, BySession("sessions write to checkpoints/ and move earlier runs aside")]
]
Corpus = Indirect[Annotated[T, BySession("choose the corpus with CONFIG or SRC")]]
StartingModel = Indirect[Annotated[T, BySession("each stage starts from the one before")]]
Rows = Indirect[Annotated[T, BySession("use SFT_DATASET or DPO_DATASET")]]
Resumed = Manner[Annotated[T, BySession("use make resume")]]


def mark_of(metadata: list[object], kind: type[M]) -> M | None:
    """Return the mark of this class among those of a field, if it has one."""
    return next((mark for mark in metadata if isinstance(mark, kind)), None)
