"""Stage 04: align an SFT model with preference pairs (DPO).

    python scripts/04_dpo.py --model_path checkpoints/sft --dataset_path data/dpo_dataset.json \
        --output_dir checkpoints/dpo --beta 0.1

Reads    the adapter of a stage 03 run (which goes on training), or any checkpoint; JSON or JSONL
         rows {prompt, chosen, rejected}, Alpaca, ShareGPT or hh-rlhf.
Writes   OUTPUT_DIR/adapter, OUTPUT_DIR/final (merged model), metrics.jsonl, run.json.
Resumes  never: a stopped run leaves its adapter, and the next one starts again beside it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.config.dpo import DPOConfig
from utils.stage import run_stage, stop_request


def main(cfg: DPOConfig) -> None:
    """Prove the training signal, train, merge, measure; the merged folder goes to stdout."""
    stop_request.install()
    if cfg.preflight:
        from utils.preflight.runner import preflight_dpo

        preflight_dpo(cfg)
    from utils.finetuning.dpo import run_dpo

    sys.stdout.write(f"{run_dpo(cfg)}\n")


if __name__ == "__main__":
    sys.exit(run_stage(main, DPOConfig))
