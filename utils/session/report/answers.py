"""Lets models answer held-out questions: `python -m utils.session.report.answers`."""

import logging
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from utils.config.session import AnswersConfig
from utils.errors import DataError
from utils.files import read_json, write_json
from utils.stage import run_stage

log = logging.getLogger(__name__)


def questions(path: Path, count: int) -> list[str]:
    """Return the first user turns of `count` conversations, spread evenly over the file.

    Raises:
        DataError: the file is missing or holds no conversations.
    """
    rows = read_json(path)
    asked = [text for row in rows if (text := _question(row))] if isinstance(rows, list) else []
    if not asked:
        raise DataError(f"{path} holds no questions: expected rows with a prompt or messages")
    unique = list(dict.fromkeys(asked))
    stride = max(len(unique) // count, 1)
    return unique[::stride][:count]


def _question(row: Any) -> str:
    if not isinstance(row, dict):
        return ""
    if isinstance(row.get("prompt"), str):
        return row["prompt"]
    turns = row.get("messages") or []
    return next((turn["content"] for turn in turns if turn.get("role") == "user"), "")


def main(cfg: AnswersConfig) -> None:
    """Write {run name: [{question, answer, stopped}]} as JSON."""
    started = psutil.Process().create_time()
    asked = questions(cfg.heldout_path, cfg.num_questions)

    from utils.generation.engine import answer
    from utils.generation.sampling import Sampling
    from utils.model.checkpoints import best_device, load_model

    models = {path.name: load_model(path, device=best_device(cfg.cpu)) for path in cfg.model_paths}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in models}
    for question in asked:
        if cfg.max_minutes and time.time() - started > 60 * cfg.max_minutes:
            log.warning("no time left for further sample answers")
            break
        messages = [{"role": "user", "content": question}]
        for name, loaded in models.items():
            said = answer(loaded, messages, Sampling(max_new_tokens=cfg.max_new_tokens))
            entry = {"question": question, "answer": said.text, "stopped": said.stopped}
            found[name].append(entry)
    write_json(cfg.output, found)


if __name__ == "__main__":
    sys.exit(run_stage(main, AnswersConfig))
