"""Proves the training signal before a stage, and on its own (`make preflight`).

    python -m utils.preflight.runner [--data_dir DIR] [--model_path CHECKPOINT]

Quiet when fine. A stage calls its `preflight_*`; the command checks what is there and names what
was not checked.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from utils.config.dpo import DPOConfig
from utils.config.model import ModelConfig
from utils.config.preflight import PreflightConfig
from utils.config.pretrain import PretrainConfig
from utils.config.sft import SFTConfig
from utils.errors import PreflightError
from utils.log import is_main_process
from utils.preflight.result import CheckResult, require
from utils.stage import run_stage

log = logging.getLogger(__name__)

Proofs = Iterator[CheckResult]


def preflight_pretrain(cfg: PretrainConfig, data_dir: Path) -> None:
    """Prove what stage 02 relies on, with `data_dir` and the architecture of `cfg`.

    Raises:
        PreflightError: a proof failed; the line has the measured value and the remedy.
    """
    from utils.preflight import proofs_by_stage as stages

    def proofs() -> Proofs:
        model = model_part(cfg)
        yield from stages.signal_proofs(model)
        yield from stages.data_proofs(model, data_dir)

    _prove(proofs)


def preflight_sft(cfg: SFTConfig) -> None:
    """Prove what stage 03 relies on, with its checkpoint and its conversations.

    Raises:
        PreflightError: a proof failed.
        LumiError: checkpoint or data set are missing or unreadable.
    """
    from utils.model.checkpoints import load_model
    from utils.preflight import proofs_by_stage as stages

    def proofs() -> Proofs:
        loaded = load_model(cfg.model_path)
        future = stages.with_template(loaded, cfg.prompt_template)
        yield from stages.sft_proofs(future, cfg.dataset_path, cfg.max_length)
        yield from stages.checkpoint_proofs(loaded)

    _prove(proofs)


def preflight_dpo(cfg: DPOConfig) -> None:
    """Prove what stage 04 relies on, with its checkpoint and its preference pairs.

    Raises:
        PreflightError: a proof failed.
        LumiError: checkpoint or data set are missing or unreadable.
    """
    from utils.model.checkpoints import load_model
    from utils.preflight import proofs_by_stage as stages

    def proofs() -> Proofs:
        loaded = load_model(cfg.model_path)
        yield from stages.dpo_proofs(loaded, cfg.dataset_path, cfg.max_length)
        yield from stages.checkpoint_proofs(loaded)

    _prove(proofs)


def model_part(cfg: ModelConfig) -> ModelConfig:
    """Return the architecture alone."""
    return ModelConfig(**{key: getattr(cfg, key) for key in ModelConfig.model_fields})


def _prove(proofs: Callable[[], Proofs]) -> None:
    """Run the proofs on the main process, without a trace in random state or precision."""
    if not is_main_process():
        return
    from utils.preflight.signal import undisturbed

    started = time.monotonic()
    with undisturbed():
        count = require(proofs())
    log.info("preflight: %d checks passed in %.1f s", count, time.monotonic() - started)


def main(cfg: PreflightConfig) -> None:
    """Check what is there; one line for each proof and for each part that was not checked.

    Raises:
        PreflightError: proofs failed (each has its line above).
    """
    from utils.preflight.sections import parts
    from utils.preflight.signal import undisturbed

    started = time.monotonic()
    found = parts(cfg)
    results: list[CheckResult] = []
    with undisturbed():
        for part in found:
            for result in part.results():
                results.append(result)
                sys.stdout.write(_line(part.name, result))
                sys.stdout.flush()
    for part in found:
        if part.missing:
            sys.stdout.write(f"not checked: {part.name}: {part.missing}\n")
    failed = sum(not result.ok for result in results)
    if failed:
        raise PreflightError(
            f"{failed} of {len(results)} checks failed: do what the lines above say, "
            "then run `make preflight` again"
        )
    elapsed_s = time.monotonic() - started
    sys.stdout.write(f"preflight: {len(results)} checks passed in {elapsed_s:.1f} s\n")


def _line(part: str, result: CheckResult) -> str:
    if result.ok:
        return f"ok     {part}: {result.name}: {result.measured}\n"
    return f"FAILED {part}: {result.line()}\n"


if __name__ == "__main__":
    sys.exit(run_stage(main, PreflightConfig))
