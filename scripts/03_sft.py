"""Stage 03: fine-tune a checkpoint on conversations (LoRA).

    python scripts/03_sft.py --model_path checkpoints/pretrain/tiny/final \
        --dataset_path data/sft_dataset.json --prompt_template chatml --output_dir checkpoints/sft

Reads    a checkpoint; rows {prompt, response}, {messages}, Alpaca, ShareGPT or {question, answer}
         in .json, .jsonl, .csv or .parquet, also .gz and .zst.
Writes   OUTPUT_DIR/adapter, OUTPUT_DIR/final (merged model), heldout_conversations.jsonl (which
         stage 05 measures), metrics.jsonl, run.json.
Resumes  never: a stopped run leaves its adapter, and the next one starts again beside it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.config.sft import SFTConfig
from utils.stage import run_stage, stop_request


def main(cfg: SFTConfig) -> Path:
    """Prove the training signal, train, merge, measure; the merged folder goes to stdout."""
    stop_request.install()
    if cfg.preflight:
        from utils.preflight.runner import before_sft, prove

        prove(before_sft(cfg))

    from utils.chat.templates import TEMPLATES
    from utils.finetuning.lora import base_checkpoint, save
    from utils.finetuning.run_folder import recorded_run
    from utils.finetuning.sft import adapt, build_trainer, compare, measure_base
    from utils.finetuning.training_loop import quiet_libraries, train
    from utils.finetuning.training_rows import CHATS, read_rows

    quiet_libraries()
    template = TEMPLATES[cfg.prompt_template]
    with recorded_run("sft", cfg) as run:
        base = run.timed("load", base_checkpoint, cfg.model_path)
        rows = read_rows(CHATS, cfg, base, template)
        run.start(rows, base.folder, base.device)
        prompts = measure_base(base, template, rows.heldout, run)

        adapted = adapt(base, template, cfg)
        trainer, planned = build_trainer(cfg, adapted, rows.train, run)
        train(trainer, adapted, planned, run)

        merged = save(adapted, run, probes=rows.heldout.ids)
        compare(merged, rows.heldout, prompts, run)
    sys.stdout.write(f"{merged.folder}\n")
    return merged.folder


if __name__ == "__main__":
    sys.exit(run_stage(main, SFTConfig))
