"""Where held-out rows lie: beside a data set, and in the run folder of the model to measure.

Stages 03 and 04 write the rows that they held out and measured into their run folder, always as
{messages} or {prompt, chosen, rejected}. lumi.json of the model gives their number, hash, data set
and run; with it stage 05 finds them, wherever the run folder has been moved to. A DPO run carries
the conversations of its SFT run along.
Knows nothing about models and tokens.
"""

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from utils.errors import DataError
from utils.files import sha256_file, write_atomic

CONVERSATIONS, PREFERENCES = "conversations", "preferences"
"""Kinds of held-out rows."""
STAGES = {CONVERSATIONS: "sft", PREFERENCES: "dpo"}
"""Stage (make target) that holds them out."""

Origin = dict[str, Any]
"""Entry of a kind in lumi.json: rows, sha256, source (data set) and run (name of the folder)."""
log = logging.getLogger(__name__)


def heldout_beside(dataset: Path) -> Path | None:
    """Return NAME_heldout.ENDING beside the training set NAME.ENDING, where it is there."""
    name, dot, ending = dataset.name.partition(".")
    beside = dataset.with_name(f"{name}_heldout{dot}{ending}")
    return beside if beside.is_file() else None


def write_heldout(run: Path, kind: str, rows: Iterable[Mapping[str, Any]], source: str) -> Origin:
    """Write the held-out rows of a run into its folder and return the entry for lumi.json."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path = _file(run, kind)
    write_atomic(path, "".join(lines))
    return {"rows": len(lines), "sha256": sha256_file(path), "source": source, "run": run.name}


def carry_heldout(kind: str, model: Path, card: Mapping[str, Any], run: Path) -> Origin | None:
    """Copy the rows that belong to `model` into the folder of a run that starts from it.

    Returns their entry for lumi.json, None where there are none.
    """
    if kind not in card.get("heldout", {}):
        return None
    try:
        path, origin = find_heldout(kind, model, card)
    except DataError as error:
        log.warning("held-out %s not carried along: %s", kind, error)
        return None
    write_atomic(_file(run, kind), path.read_bytes())
    return origin


def find_heldout(kind: str, model: Path, card: Mapping[str, Any]) -> tuple[Path, Origin]:
    """Return the held-out rows that belong to a model folder (with its lumi.json), and their entry.

    Raises:
        DataError: its run wrote none, or they are missing or changed.
    """
    origin = card.get("heldout", {}).get(kind)
    if origin is None:
        raise DataError(
            f"{model} does not say which rows were held out as {kind}: run `make {STAGES[kind]}` "
            f"again, or pass --{STAGES[kind]}_heldout_path"
        )
    path = _file(model.absolute().parent, kind)
    if not path.is_file():
        raise DataError(f"{path} is missing: put it back beside {model.name}/")
    if sha256_file(path) != origin["sha256"]:
        raise DataError(f"{path} has changed since {origin['run']} held it out: restore it")
    return path, origin


def _file(run: Path, kind: str) -> Path:
    return run / f"heldout_{kind}.jsonl"
