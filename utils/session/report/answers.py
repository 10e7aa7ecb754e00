"""Lets models answer held-out questions: `python -m utils.session.report.answers`."""

import logging
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from utils.chat.heldout_files import CONVERSATIONS, find_heldout
from utils.chat.rows import read_questions
from utils.config.session import AnswersConfig
from utils.files import write_json
from utils.stage import run_stage

log = logging.getLogger(__name__)


def questions(path: Path, count: int) -> list[str]:
    """Return the first user turns of `count` conversations, spread evenly over the file.

    Raises:
        DataError: the file is missing or holds no conversations.
    """
    unique = list(dict.fromkeys(read_questions(path)))
    stride = max(len(unique) // count, 1)
    return unique[::stride][:count]


def main(cfg: AnswersConfig) -> None:
    """Write {run name: [{question, answer, stopped}]} as JSON."""
    started = psutil.Process().create_time()
    from utils.generation.engine import answer
    from utils.generation.sampling import Sampling
    from utils.model.checkpoints import best_device, load_model

    models = {path.name: load_model(path, device=best_device(cfg.cpu)) for path in cfg.model_paths}
    last = list(models.values())[-1]
    path = cfg.heldout_path or find_heldout(CONVERSATIONS, last.folder, last.card)[0]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in models}
    for question in questions(path, cfg.num_questions):
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
