"""Proves the training signal before a stage, and on its own (`make preflight`).

    python -m utils.preflight.runner [--data_dir DIR] [--model_path CHECKPOINT]

Quiet when fine. A stage proves what it relies on; the command checks what is there and names what
was not checked.
"""

import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from utils.config.dpo import DPOConfig
from utils.config.preflight import PreflightConfig
from utils.config.pretrain import PretrainConfig
from utils.config.sft import SFTConfig
from utils.errors import PreflightError
from utils.log import is_main_process
from utils.preflight.result import CheckResult
from utils.stage import run_stage

log = logging.getLogger(__name__)

Proofs = Iterator[CheckResult]


def before_pretrain(cfg: PretrainConfig, data_dir: Path) -> Proofs:
    """Yield what stage 02 relies on, with `data_dir` and the architecture of `cfg`."""
    from utils.preflight import proofs_by_stage as stages

    yield from stages.signal_proofs(cfg)
    yield from stages.data_proofs(cfg, data_dir)


def before_sft(cfg: SFTConfig) -> Proofs:
    """Yield what stage 03 relies on, with its checkpoint and its conversations."""
    from utils.model.checkpoints import load_model
    from utils.preflight import proofs_by_stage as stages

    loaded = load_model(cfg.model_path)
    future = stages.with_template(loaded, cfg.prompt_template)
    yield from stages.sft_proofs(future, cfg.dataset_path, cfg.max_length)
    yield from stages.checkpoint_proofs(loaded)


def before_dpo(cfg: DPOConfig) -> Proofs:
    """Yield what stage 04 relies on, with its checkpoint and its preference pairs."""
    from utils.model.checkpoints import load_model
    from utils.preflight import proofs_by_stage as stages

    loaded = load_model(cfg.model_path)
    yield from stages.dpo_proofs(loaded, cfg.dataset_path, cfg.max_length)
    yield from stages.checkpoint_proofs(loaded)


def prove(proofs: Proofs) -> int:
    """Run the proofs on the main process, up to the first that fails; return how many there were.

    They leave no trace in random state or precision.

    Raises:
        PreflightError: a proof failed; the line has the measured value and the remedy.
        LumiError: what a proof reads is missing or unreadable.
    """
    if not is_main_process():
        return 0
    from utils.preflight.signal import undisturbed

    started, count = time.monotonic(), 0
    with undisturbed():
        for result in proofs:
            count += 1
            if not result.ok:
                raise PreflightError(f"preflight failed: {result.line()}")
    log.info("preflight: %d checks passed in %.1f s", count, time.monotonic() - started)
    return count


def main(cfg: PreflightConfig) -> None:
    """Check what is there; one line for each proof and for each part that was not checked.

    Raises:
        PreflightError: proofs failed (each has its line above).
    """
    from utils.preflight.sections import parts
    from utils.preflight.signal import undisturbed

    started = time.monotonic()
    found = parts(cfg)
    total = failed = 0
    with undisturbed():
        for part in found:
            for result in part.results():
                total += 1
                failed += not result.ok
                line = f"{result.name}: {result.measured}" if result.ok else result.line()
                sys.stdout.write(f"{'ok    ' if result.ok else 'FAILED'} {part.name}: {line}\n")
                sys.stdout.flush()
    for part in found:
        if part.missing:
            sys.stdout.write(f"not checked: {part.name}: {part.missing}\n")
    if failed:
        raise PreflightError(
            f"{failed} of {total} checks failed: do what the lines above say, "
            "then run `make preflight` again"
        )
    sys.stdout.write(f"preflight: {total} checks passed in {time.monotonic() - started:.1f} s\n")


if __name__ == "__main__":
    sys.exit(run_stage(main, PreflightConfig))
