"""The report of a step that went wrong: what was in its window of data, and how each row fared.

Knows nothing about what is done about it: see `utils.training.guard`.
"""

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from utils.files import write_json
from utils.tokenizers.load import load_tokenizer
from utils.training.step.loss import RowForm, language_model_loss

INCIDENTS = "incidents"
"""Folder of the reports in a run folder."""
ROWS_SHOWN = 8
"""Rows whose text a report holds: those with the highest loss."""


@dataclass(frozen=True)
class SkippedWindow:
    """A step whose update was refused, with the numbers that spoke against it."""

    step: int
    """Steps done before it: the number of the step is one more."""
    first_row: int
    """Global number of the first row of its window."""
    reason: str
    loss: float
    """Nats per token over the window."""
    gradient_norm: float


def row_losses(
    model: PreTrainedModel,
    rows: Iterable[Tensor],
    form: RowForm,
    autocast: Callable[[], AbstractContextManager],
) -> list[float]:
    """Return the mean loss of each of `rows`, (1, T) each, in nats per token, without dropout.

    Every process works out all rows: with sharded weights a forward pass needs all of them.
    """

    def loss(row: Tensor) -> float:
        return language_model_loss(model, row.to(model.device), form=form).item()

    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"), autocast():
            return [loss(row) for row in rows]
    finally:
        model.train(was_training)


def write_report(
    folder: Path,
    skipped: SkippedWindow,
    rows: list[Tensor],
    losses: list[float],
    tokenizer_dir: Path,
) -> Path:
    """Write incidents/step_N_row_R.json in a run folder and return its path."""
    tokenizer = load_tokenizer(tokenizer_dir)
    worst = sorted(range(len(rows)), key=lambda row: _rank(losses[row]), reverse=True)[:ROWS_SHOWN]
    shown = [
        {
            "row": skipped.first_row + row,
            "loss": _number(losses[row]),
            "text": tokenizer.decode(rows[row].flatten().tolist()),
        }
        for row in worst
    ]
    values: dict[str, Any] = {
        **{key: _number(value) for key, value in asdict(skipped).items()},
        "format": 1,
        "step": skipped.step + 1,
        "num_rows": len(rows),
        "row_losses": [_number(loss) for loss in losses],
        "highest": shown,
    }
    name = f"step_{skipped.step + 1}_row_{skipped.first_row}.json"
    write_json(folder / INCIDENTS / name, values)
    return folder / INCIDENTS / name


def _rank(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf


def _number(value: Any) -> Any:
    """Return `value`, or its name where JSON has no number for it (nan, inf)."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
