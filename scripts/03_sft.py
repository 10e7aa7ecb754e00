"""Stage 03: fine-tune a checkpoint on conversations (LoRA).

    python scripts/03_sft.py --model_path checkpoints/pretrain/tiny/final \
        --dataset_path data/sft_dataset.json --prompt_template chatml --output_dir checkpoints/sft

Reads    a checkpoint; JSON or JSONL rows {prompt, response}, {messages}, Alpaca or ShareGPT.
Writes   OUTPUT_DIR/adapter, OUTPUT_DIR/final (merged model), metrics.jsonl, run.json.
Resumes  never: a stopped run leaves its adapter, and the next one starts again beside it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.config.sft import SFTConfig
from utils.stage import run_stage, stop_request


def main(cfg: SFTConfig) -> None:
    """Prove the training signal, train, merge, measure; the merged folder goes to stdout."""
    stop_request.install()
    if cfg.preflight:
        from utils.preflight.runner import preflight_sft

        preflight_sft(cfg)
    from utils.finetuning.sft import run_sft

    sys.stdout.write(f"{run_sft(cfg)}\n")


if __name__ == "__main__":
    sys.exit(run_stage(main, SFTConfig))
