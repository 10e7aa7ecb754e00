"""Stage 04: align an SFT model with preference pairs (DPO).

    python scripts/04_dpo.py --model_path checkpoints/sft --dataset_path data/dpo_dataset.json \
        --output_dir checkpoints/dpo --beta 0.1

Reads    the adapter of a stage 03 run (which goes on training), or any checkpoint; rows
         {prompt, chosen, rejected}, Alpaca, ShareGPT or hh-rlhf in the formats of stage 03.
Writes   OUTPUT_DIR/adapter, OUTPUT_DIR/final (merged model), heldout_preferences.jsonl (which
         stage 05 measures, with the conversations of stage 03), metrics.jsonl, run.json.
Resumes  never: a stopped run leaves its adapter, and the next one starts again beside it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.config.dpo import DPOConfig
from utils.stage import run_stage, stop_request


def main(cfg: DPOConfig) -> Path:
    """Prove the training signal, train, merge, measure; the merged folder goes to stdout."""
    stop_request.install()
    if cfg.preflight:
        from utils.preflight.runner import before_dpo, prove

        prove(before_dpo(cfg))

    from utils.finetuning.dpo import (
        build_trainer,
        check_first_loss,
        compare,
        measure_base,
        policy,
    )
    from utils.finetuning.lora import save
    from utils.finetuning.run_folder import recorded_run
    from utils.finetuning.training_loop import quiet_libraries, train
    from utils.finetuning.training_rows import PAIRS, read_rows

    quiet_libraries()
    with recorded_run("dpo", cfg) as run:
        adapted = run.timed("load", policy, cfg)
        rows = read_rows(PAIRS, cfg, adapted.base, adapted.template)
        run.start(rows, adapted.source, adapted.base.device)
        before = measure_base(adapted.base, rows.heldout, run)

        trainer, planned = build_trainer(cfg, adapted, rows.train)
        check_first_loss(cfg, trainer, run)
        train(trainer, adapted, planned, run)

        merged = save(adapted, run, probes=rows.heldout.ids)
        compare(cfg, merged, rows.heldout, before, run)
    sys.stdout.write(f"{merged.folder}\n")
    return merged.folder


if __name__ == "__main__":
    sys.exit(run_stage(main, DPOConfig))
