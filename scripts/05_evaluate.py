"""Stage 05: measure any checkpoint, also one in the middle of training.

    python scripts/05_evaluate.py --model_path checkpoints/dpo --data_dir FOLDER --fast_mode

Reads    a checkpoint or run folder; WikiText-2, BoolQ and LAMBADA from --data_dir or the hub;
         the held-out split of a prepared folder; held-out conversations and preferences.
Writes   evaluation_results.json, report.md and records/ into --output_dir (unset:
         evaluation/results/RUN); prints the path of the result.
Resumes  not at all: a stopped run writes what it has measured, with the rest marked "not run".
"""

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file from anywhere

from utils.config.evaluate import EvaluateConfig
from utils.errors import CheckpointError
from utils.stage import run_stage, stop_request

log = logging.getLogger("evaluate")


def main(cfg: EvaluateConfig) -> Path:
    """Run all parts that fit and return the result folder.

    Raises:
        CheckpointError: there is no such checkpoint (said before torch is imported).
    """
    if not cfg.model_path.exists():
        raise CheckpointError(f"no checkpoint at {cfg.model_path}: train one, or pass --model_path")
    from utils.evaluation.report import summary_lines
    from utils.evaluation.suite import RESULTS_FILE, evaluate
    from utils.files import read_json

    stop_request.install()
    folder = evaluate(cfg)
    for line in summary_lines(read_json(folder / RESULTS_FILE)):
        log.info("%s", line)
    log.info("all answers are in %s", folder / "report.md")
    log.info("next: python evaluation/assess_performance.py %s", folder / RESULTS_FILE)
    sys.stdout.write(f"{folder / RESULTS_FILE}\n")
    return folder


if __name__ == "__main__":
    sys.exit(run_stage(main, EvaluateConfig))
