"""Stage 01: turn raw text into a clean, deduplicated, tokenized data set with train and validation.

    python scripts/01_prepare_data.py --config config/datasets/pydocs.json
    python scripts/01_prepare_data.py --input_path ~/texts --vocab_size 8192

Reads    a hub data set, a local file or folder (txt, md, html, epub, jsonl, json, csv, parquet;
         packed as .zip, .gz or .zst too), or `pydocs`, the docstrings on this machine.
Writes   data/processed/NAME/: train_*.jsonl, val_*.jsonl, tokens/, tokenizer/, rejected/,
         manifest.json, stats.json, DATA_CARD.md, settings.json.
Resumes  from what its steps left in .cache-NAME beside it; the folder itself is there whole or not
         at all, and one that is there stays.
"""

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file from anywhere

from utils.checkout import CONFIG
from utils.config.prepare import PrepareConfig
from utils.stage import run_stage, stop_request

log = logging.getLogger("prepare")


def main(cfg: PrepareConfig) -> Path:
    """Prepare the corpus and return its folder, which is also printed."""
    stop_request.install()

    from utils.data.prepare import prepare
    from utils.evaluation.benchmark_items import benchmark_items
    from utils.planning.corpus_advice import corpus_advice

    folder = prepare(cfg, lambda: benchmark_items(cfg.eval_data_dir))
    log.info("read %s", folder / "DATA_CARD.md")
    for line in corpus_advice(folder, CONFIG):
        log.info("%s", line)
    sys.stdout.write(f"{folder}\n")
    return folder


if __name__ == "__main__":
    sys.exit(run_stage(main, PrepareConfig))
