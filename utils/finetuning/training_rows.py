"""Reads the rows of a fine-tuning run: trained on, held out, left out; every one of them counted.

What differs between conversations and preferences is in CHATS and PAIRS.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from utils.chat.heldout_files import CONVERSATIONS, PREFERENCES, heldout_beside
from utils.chat.rows import (
    DPORows,
    SFTRows,
    build_dpo_rows,
    build_sft_rows,
    read_conversations,
    read_preferences,
)
from utils.chat.templates import Template
from utils.config.dpo import DPOConfig
from utils.config.sft import SFTConfig
from utils.errors import DataError
from utils.finetuning.contamination import (
    Screening,
    conversation_text,
    decontaminated,
    preference_text,
)
from utils.finetuning.splits import MAX_HELDOUT, hold_out
from utils.model.checkpoints import LoadedModel
from utils.reading.documents import BadLine

Encoded = TypeVar("Encoded", SFTRows, DPORows)


@dataclass(frozen=True)
class RowKind(Generic[Encoded]):
    """How rows of one kind are read, encoded and searched for benchmarks."""

    name: str
    unit: str
    """Name of a row in run.json."""
    read: Callable[[Path], tuple[list[Any], list[BadLine]]]
    build: Callable[..., Encoded]
    text: Callable[[Any], str]


CHATS = RowKind(CONVERSATIONS, "rows", read_conversations, build_sft_rows, conversation_text)
PAIRS = RowKind(PREFERENCES, "pairs", read_preferences, build_dpo_rows, preference_text)


@dataclass(frozen=True)
class TrainingRows(Generic[Encoded]):
    """Training and held-out rows as ids, and what was left out."""

    kind: RowKind[Encoded]
    train: Encoded
    heldout: Encoded
    """The rows that are measured and written into the run folder, MAX_HELDOUT at most."""
    heldout_source: Path
    """File they come from."""
    bad: list[BadLine]
    """Bad rows of both files."""
    screening: Screening[Any]
    held_out: int
    """Training rows set aside because there is no held-out file."""
    read: int
    """Rows read, without those of a held-out file that are good."""

    @property
    def counts(self) -> dict[str, Any]:
        """Return rows = kept + held_out + bad + the sum of dropped."""
        counts = {"rows": self.read, "kept": len(self.train), "held_out": self.held_out}
        counts["bad"] = len(self.bad)
        assert 2 * self.read == sum(counts.values()) + self.train.dropped.total(), counts
        return {**counts, "dropped": dict(self.train.dropped)}


def read_rows(
    kind: RowKind[Encoded], cfg: SFTConfig | DPOConfig, base: LoadedModel, template: Template
) -> TrainingRows[Encoded]:
    """Read, split, screen and encode the rows of a run.

    Held out are the rows of --heldout_path, else of NAME_heldout beside the data set, else 5 %.

    Raises:
        DataError: a file is missing, or nothing is left to learn from or to measure.
    """
    rows, bad = kind.read(cfg.dataset_path)
    read, held_out = len(rows) + len(bad), 0
    file = cfg.heldout_path or heldout_beside(cfg.dataset_path)
    if file is None:
        rows, held = hold_out(rows, cfg.seed)
        held_out = len(held)
    else:
        held, held_bad = kind.read(file)
        bad, read = bad + held_bad, read + len(held_bad)
    length = row_length(cfg, base)
    heldout = kind.build(held, template, base.encoder, length)
    clean = decontaminated(cfg, rows, kind.text)
    train = kind.build(clean.rows, template, base.encoder, length, exclude=heldout)
    train.dropped += Counter(contaminated=clean.dropped)
    source = file or cfg.dataset_path
    _require(heldout, source, length)
    _require(train, cfg.dataset_path, length)
    first = heldout.first(MAX_HELDOUT)
    return TrainingRows(kind, train, first, source, bad, clean, held_out, read)


def row_length(cfg: SFTConfig | DPOConfig, base: LoadedModel) -> int:
    """Return the tokens of the longest row."""
    return min(cfg.max_length or base.context_length, base.context_length)


def _require(rows: SFTRows | DPORows, path: Path, length: int) -> None:
    if not len(rows):
        raise DataError(
            f"{path}: all rows are dropped ({rows.reasons}; the limit is {length} tokens): shorten "
            "or replace them, or raise --max_length up to the model's context"
        )
