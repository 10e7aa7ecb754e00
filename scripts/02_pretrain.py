"""Stage 02: pre-train a decoder from scratch on the token shards of stage 01.

    python scripts/02_pretrain.py --config config/tiny.json --data_dir data/processed/pydocs
    accelerate launch scripts/02_pretrain.py ...        (or torchrun: several GPUs)

Reads    manifest.json and the token shards in --data_dir.
Writes   <output_dir>/<model_name>/step_N, best, final, metrics.jsonl, plan.json, run.json,
         report.html.
Resumes  bit-identically from any step_N; an unfinished run with these settings goes on by itself.
"""

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file from anywhere

from utils.config.pretrain import PretrainConfig
from utils.stage import leave, run_stage, stop_request

log = logging.getLogger("pretrain")


def main(cfg: PretrainConfig) -> Path:
    """Train until the steps, the epochs or the time box are done; return the final checkpoint."""
    from utils.training.inputs import find_inputs

    inputs = find_inputs(cfg)  # before torch is imported, so that a mistake is told at once

    from utils.time_box import Clock
    from utils.training.devices.processes import Processes
    from utils.training.early_stopping import stop_early
    from utils.training.reporting import Report
    from utils.training.run import open_run
    from utils.training.setup import build_trainer

    clock = Clock()
    stop_request.install()
    processes = Processes(cpu=cfg.cpu)
    with processes.together(), open_run(inputs, processes.share) as run:
        if cfg.preflight and processes.is_main:
            from utils.preflight.runner import before_pretrain, prove

            prove(before_pretrain(run.cfg, run.data_dirs[0]))

        trainer = build_trainer(run, processes, clock)
        report = Report(trainer)
        if trainer.state.step == 0:
            trainer.validate(max_batches=2)

        for step in report.steps():
            report.record_step()
            if trainer.is_validation_due():
                trainer.saver.keep_best(trainer.validate())
                stop_early(trainer)
            if trainer.is_save_due():
                trainer.saver.save(f"step_{step}")

        report.sample()
        final = trainer.finish()
        report.finish()
    log.info("%.4f bits per byte after %d steps: %s", trainer.val_bpb, trainer.state.step, final)
    return final


if __name__ == "__main__":
    leave(run_stage(main, PretrainConfig))
