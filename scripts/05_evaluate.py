"""Stage 05: measure any checkpoint, also one in the middle of training.

    python scripts/05_evaluate.py --model_path checkpoints/dpo --data_dir FOLDER --fast_mode

Reads    a checkpoint or run folder; WikiText-2, BoolQ and LAMBADA from --data_dir or the hub;
         the held-out split of a prepared folder; the conversations and preferences that the
         checkpoint's own run held out (or files of yours).
Writes   evaluation_results.json, report.md and records/ into --output_dir (unset:
         evaluation/results/RUN); prints the path of the result.
Resumes  not at all: a stopped run writes what it has measured, with the rest marked "not run".
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file from anywhere

from utils.config.evaluate import EvaluateConfig
from utils.errors import CheckpointError
from utils.stage import run_stage, stop_request

if TYPE_CHECKING:
    from utils.evaluation.measurements import Measurement

log = logging.getLogger("evaluate")


def main(cfg: EvaluateConfig, measurements: "Sequence[Measurement] | None" = None) -> Path:
    """Measure what fits into the time box (all there is when None); return the result folder.

    Raises:
        CheckpointError: there is no such checkpoint (said before torch is imported).
    """
    if not cfg.model_path.exists():
        raise CheckpointError(f"no checkpoint at {cfg.model_path}: train one, or pass --model_path")
    from utils.evaluation.measurements import MEASUREMENTS, Context
    from utils.evaluation.part_timer import PartTimer
    from utils.evaluation.report import summary_lines
    from utils.evaluation.suite import REPORT_FILE, RESULTS_FILE, check_paths, recorded_results
    from utils.model.checkpoints import best_device, load_model

    stop_request.install()
    check_paths(cfg)
    timer = PartTimer(cfg.max_minutes)
    loaded = load_model(cfg.model_path, device=best_device(cfg.cpu))
    wanted = MEASUREMENTS if measurements is None else measurements
    with recorded_results(cfg, loaded, wanted) as results:
        for measurement in wanted:
            results.measure(measurement, Context(cfg, loaded, timer))

    for line in summary_lines(results.content):
        log.info("%s", line)
    log.info("all answers are in %s", results.folder / REPORT_FILE)
    log.info("next: python evaluation/assess_performance.py %s", results.folder / RESULTS_FILE)
    sys.stdout.write(f"{results.folder / RESULTS_FILE}\n")
    return results.folder


if __name__ == "__main__":
    sys.exit(run_stage(main, EvaluateConfig))
