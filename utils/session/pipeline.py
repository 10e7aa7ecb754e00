"""Runs all six stages without a time box: make pipeline-full and make test-pipeline.

`python -m utils.session.pipeline --size tiny`   at full size, with what PRETRAIN_, SFT_, DPO_ say
`python -m utils.session.pipeline --test`        on a few hundred documents, in a scratch folder

The same machinery as a session: the first stage that fails ends it and is named.
"""

import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from utils.checkout import ROOT
from utils.config.session import PipelineConfig, SessionConfig
from utils.files import write_json
from utils.session.report.closing import WIDTH, stage_table
from utils.session.runner import REAL, Tools, start_session
from utils.session.state.folder import Session
from utils.stage import run_stage, stop_request

STAGES = ("prepare", "samples", "pretrain", "sft", "dpo", "evaluate")
TEST_DOCUMENTS = 400
TEST_MODEL = {
    "model_name": "pipeline_test", "n_layer": 2, "d_model": 64, "n_head": 2, "d_ff": 128,
    "vocab_size": 800, "sequence_length": 192, "batch_size": 8, "gradient_accumulation_steps": 1,
}  # fmt: skip
TEST_FLAGS: dict[str, dict[str, Any]] = {
    "prepare": {"max_samples": TEST_DOCUMENTS, "num_workers": 1},
    "samples": {"num_sft": 120, "num_dpo": 60, "num_heldout": 12},
    "pretrain": {"max_steps": 40, "eval_tokens": 8192, "compile": False},
    "sft": {"max_steps": 10},
    "dpo": {"max_steps": 5},
    "evaluate": {"fast_mode": True, "skip_perplexity": True, "max_new_tokens": 16},
}


def full_session(cfg: PipelineConfig) -> SessionConfig:
    """Return all stages at full size as a session without a box."""
    shared = ("dataset_config", "source", "sft_dataset", "dpo_dataset", "eval_data_dir", "seed")
    values = {name: getattr(cfg, name) for name in (*shared, "runs_dir")}
    return SessionConfig.build(
        {"name": "pipeline", "minutes": None, "stages": STAGES, "model_sizes": (cfg.size,)} | values
    )


def trial_session(cfg: PipelineConfig, work_dir: Path) -> SessionConfig:
    """Return all stages and a serve check as a session in `work_dir`, with a very small model."""
    model = work_dir / "pipeline_test.json"
    write_json(model, TEST_MODEL)
    values = {
        "name": "test-pipeline",
        "minutes": None,
        "stages": (*STAGES, "serve"),
        "dataset_config": cfg.dataset_config.absolute(),
        "source": cfg.source and cfg.source.expanduser().absolute(),
        "model_sizes": (str(model),),
        "flags": TEST_FLAGS,
        "eval_data_dir": cfg.eval_data_dir and cfg.eval_data_dir.expanduser().absolute(),
        "runs_dir": work_dir / "sessions",
        "work_dir": work_dir,
        "seed": cfg.seed,
    }
    return SessionConfig.build(values)


def borrow_corpus_cache(work_dir: Path) -> None:
    """Let the trial read the extracted built-in corpus, which it would otherwise extract again."""
    cache = ROOT / "data" / "raw" / "pydocs"
    if cache.is_dir():
        (work_dir / "data" / "raw").mkdir(parents=True)
        (work_dir / "data" / "raw" / "pydocs").symlink_to(cache, target_is_directory=True)


def run_pipeline(cfg: PipelineConfig, tools: Tools = REAL) -> None:
    """Run the pipeline that the settings ask for.

    Raises:
        LumiError: a stage failed; its number and name are in the message.
    """
    if not cfg.test:
        start_session(full_session(cfg), tools)
        return
    with tempfile.TemporaryDirectory(prefix="lumi-pipeline-") as folder:
        work_dir = Path(folder)
        borrow_corpus_cache(work_dir)
        start_session(trial_session(cfg, work_dir), replace(tools, say_end=_trial_words))


def _trial_words(session: Session) -> None:
    """Write the table of a trial, of which nothing else is kept."""
    width = None if sys.stdout.isatty() else WIDTH
    Console(file=sys.stdout, highlight=False, width=width).print(stage_table(session.summary))
    sys.stdout.write("All six stages work on this machine; nothing of the trial was kept.\n")


def main(cfg: PipelineConfig) -> None:
    """Run the pipeline."""
    stop_request.install()
    if cfg.test:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    run_pipeline(cfg)


if __name__ == "__main__":
    sys.exit(run_stage(main, PipelineConfig))
