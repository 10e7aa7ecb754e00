"""Direct preference optimization: the SFT adapter trains on, against a frozen copy of itself.

Before the first step the preference loss must be ln 2: policy and reference are the same model
then. Anything else means that the reference is wrong, and training would go astray silently.

The preference loss alone looks at differences and lets both answers grow less likely, their stop
tokens too; the chosen answers' own loss, added to it, holds them.

The story is in scripts/04_dpo.py.

References: Rafailov et al., 2023, "Direct Preference Optimization"; Pang et al., 2024, "Iterative
Reasoning Preference Optimization" (the added term, there with weight 1).
"""

import logging
import math
from pathlib import Path
from typing import Any

import torch
from trl.trainer.dpo_config import DPOConfig as TRLConfig
from trl.trainer.dpo_trainer import DPOTrainer

from utils.chat.rows import DPORows
from utils.config.dpo import DPOConfig
from utils.errors import CheckpointError, PreflightError
from utils.evaluation.preferences import (
    Likelihoods,
    answer_likelihoods,
    preference_accuracy,
)
from utils.finetuning.lora import (
    ADAPTER,
    AdaptedModel,
    adapter_of,
    base_checkpoint,
    load_adapter,
    new_adapter,
)
from utils.finetuning.run_folder import AdapterRun
from utils.finetuning.training_loop import (
    PlannedRows,
    on_one_device,
    planned_rows,
    trainer_parts,
    trainer_settings,
)
from utils.model.checkpoints import LoadedModel
from utils.run_folder import RunFolder

FIRST_LOSS = math.log(2)
FIRST_LOSS_TOLERANCE = 1e-3
CHECKED_BATCHES = 2

log = logging.getLogger(__name__)


class PairTrainer(DPOTrainer):
    """TRL's trainer on ids that are made already.

    TRL 1.16 tokenizes rendered text itself, and ids of a rendered conversation differ from those
    built piece by piece; its collator takes prompt_ids, chosen_ids and rejected_ids as they are.
    """

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        columns = {"prompt_ids", "chosen_ids", "rejected_ids"}
        assert columns <= set(dataset.column_names), dataset.column_names
        return dataset


def policy(cfg: DPOConfig) -> AdaptedModel:
    """Return the SFT adapter of a run folder, trainable, or a fresh adapter on a checkpoint.

    Raises:
        CheckpointError: there is neither, or the adapter's base is missing or another one.
    """
    adapter = adapter_of(cfg.model_path)
    if adapter is not None and adapter != cfg.model_path:
        require_finished(cfg.model_path)
    if adapter is not None:
        log.info("continuing the adapter %s", adapter)
        return load_adapter(adapter)
    return new_adapter(base_checkpoint(cfg.model_path), cfg, train_embedding=False)


def require_finished(run: Path) -> None:
    """Check that a run folder was not left half-way.

    Raises:
        CheckpointError: its run.json says that it was.
    """
    if RunFolder.is_in(run) and not (found := RunFolder.read(run)).is_finished:
        raise CheckpointError(
            f"{run} is {found.status}, not finished: run stage 03 again, or pass --model_path "
            f"{run / ADAPTER} to take the adapter as it is"
        )


def measure_base(base: LoadedModel, heldout: DPORows, run: AdapterRun) -> Likelihoods:
    """Return how likely the held-out answers are before training, and keep time to ask again."""
    before = run.timed("measure", answer_likelihoods, base, heldout)
    run.summary["heldout_accuracy_before"] = preference_accuracy(before).value
    run.reserve()
    return before


def build_trainer(
    cfg: DPOConfig, adapted: AdaptedModel, rows: DPORows
) -> tuple[PairTrainer, PlannedRows]:
    """Return TRL's trainer on the rows in their order; it adds the frozen reference adapter."""
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    columns = {name: getattr(rows, name) for name in names}
    planned = planned_rows(cfg, rows.lengths, [rows.tokens(n) for n in range(len(rows))])
    settings = trainer_settings(cfg, adapted.base.device, planned.plan.most)
    losses = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, cfg.sft_loss_weight]}
    args = on_one_device(TRLConfig(**settings, **losses, beta=cfg.beta))
    return PairTrainer(args=args, **trainer_parts(cfg, adapted, columns, planned)), planned


def check_first_loss(cfg: DPOConfig, trainer: DPOTrainer, run: AdapterRun) -> None:
    """Prove that policy and reference are the same model before the first step.

    Raises:
        PreflightError: the loss is not ln 2.
    """
    run.summary["first_loss"] = first_loss(trainer)
    if cfg.sft_loss_weight:
        text = "first preference loss %.4f (ln 2); the loss shown adds %g x that of chosen answers"
        log.info(text, run.summary["first_loss"], cfg.sft_loss_weight)


def first_loss(trainer: DPOTrainer) -> float:
    """Return the preference loss before the first step, over the first batches.

    Raises:
        PreflightError: it is not ln 2 within 1e-3.
    """
    losses = []
    batches = iter(trainer.get_train_dataloader())
    model: Any = trainer.model
    model.train()
    weights, trainer.loss_weights = trainer.loss_weights, [1.0, 0.0]
    for _, inputs in zip(range(CHECKED_BATCHES), batches, strict=False):
        with torch.no_grad(), trainer.accelerator.autocast():
            losses.append(float(trainer.compute_loss(model, trainer._prepare_inputs(inputs))))
    trainer.loss_weights = weights
    trainer._metrics["train"].clear()
    worst = max(losses, key=lambda loss: abs(loss - FIRST_LOSS))
    if not abs(worst - FIRST_LOSS) <= FIRST_LOSS_TOLERANCE:
        raise PreflightError(
            f"the first DPO loss is {worst:.4f} instead of ln 2 = {FIRST_LOSS:.4f}: policy and "
            "reference differ; pass the merged model (final/) as --model_path"
        )
    return sum(losses) / len(losses)


def compare(
    cfg: DPOConfig, merged: LoadedModel, heldout: DPORows, before: Likelihoods, run: AdapterRun
) -> None:
    """Measure what was learned on the held-out pairs, and log it."""
    after = answer_likelihoods(merged, heldout)
    gains = [(c - c0, r - r0) for (c, r), (c0, r0) in zip(after, before, strict=True)]
    run.summary |= {
        "heldout_accuracy_after": preference_accuracy(after).value,
        "heldout_reward_accuracy": preference_accuracy(gains).value,
        "heldout_reward_margin": cfg.beta * sum(c - r for c, r in gains) / len(gains),
    }
    log.info(
        "held-out preference accuracy %.3f -> %.3f (%d pairs), first loss %.4f: %s",
        run.summary["heldout_accuracy_before"], run.summary["heldout_accuracy_after"],
        len(after), run.summary["first_loss"], merged.folder,
    )  # fmt: skip
