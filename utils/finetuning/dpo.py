"""Direct preference optimization: the SFT adapter trains on, against a frozen copy of itself.

Before the first step the preference loss must be ln 2: policy and reference are the same model
then. Anything else means that the reference is wrong, and training would go astray silently.

The preference loss alone looks at differences and lets both answers grow less likely, their stop
tokens too; the chosen answers' own loss, added to it, holds them.

References: Rafailov et al., 2023, "Direct Preference Optimization"; Pang et al., 2024, "Iterative
Reasoning Preference Optimization" (the added term, there with weight 1).
"""

import logging
import math
import time
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl.trainer.dpo_config import DPOConfig as TRLConfig
from trl.trainer.dpo_trainer import DPOTrainer

from utils.chat.layouts import Preference
from utils.chat.rows import (
    BadRow,
    DPORows,
    build_dpo_rows,
    read_preferences,
)
from utils.config.dpo import DPOConfig
from utils.errors import CheckpointError, PreflightError
from utils.evaluation.likelihood import score_pairs
from utils.finetuning import training_loop as runner
from utils.finetuning.contamination import (
    Screening,
    decontaminated,
    preference_text,
)
from utils.finetuning.lora import (
    ADAPTER,
    AdaptedModel,
    adapter_of,
    base_checkpoint,
    load_adapter,
    new_adapter,
    save_adapter,
    save_merged,
)
from utils.finetuning.run_folder import AdapterRun, recorded_run
from utils.finetuning.splits import MAX_HELDOUT, measured, read_split, require_rows
from utils.finetuning.time_box import StepPlan, TimeBox
from utils.model.checkpoints import LoadedModel
from utils.run_folder import RunFolder

FIRST_LOSS = math.log(2)
FIRST_LOSS_TOLERANCE = 1e-3
CHECKED_BATCHES = 2
PROBES = 4

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


@dataclass
class DPOData:
    """Training and held-out pairs, and what was left out."""

    train: DPORows
    heldout: DPORows
    bad: list[BadRow]
    counts: dict[str, Any]
    screening: Screening[Preference]


def run_dpo(cfg: DPOConfig) -> Path:
    """Run stage 04 and return the folder of the merged model.

    Raises:
        LumiError: model or data cannot be used, the box is too small, a check failed.
        Interrupted: a signal arrived; the adapter so far is saved.
    """
    runner.quiet_libraries()
    box = TimeBox(cfg.max_minutes)
    with recorded_run("dpo", cfg) as run:
        started = time.monotonic()
        adapted = policy(cfg)
        load_s = time.monotonic() - started
        run.refuse_own_output(cfg.model_path)
        data = load_data(cfg, adapted)
        run.start(data.bad, data.screening, **runner.fast_paths(adapted.base.device))
        log.info("%s", f"DPO of {cfg.model_path} on {data.counts}")
        run.summary |= {"pairs": len(data.train), "dropped": data.counts["dropped"]}
        run.summary |= {"counts": data.counts, "heldout_pairs": measured(data.heldout)}
        started = time.monotonic()
        before = log_likelihoods(adapted.base, data.heldout)
        box.reserve_s = runner.reserve_s(load_s, time.monotonic() - started)
        run.summary["heldout_accuracy_before"] = share(before)
        train_adapter(cfg, adapted, data.train, run, box)
        return finish(cfg, adapted, data, run, before)


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


def load_data(cfg: DPOConfig, adapted: AdaptedModel) -> DPOData:
    """Read, encode and count the pairs.

    Raises:
        DataError: a file is missing, or nothing is left to learn from.
    """
    base, template = adapted.base, adapted.template
    length = min(cfg.max_length or base.context_length, base.context_length)
    split = read_split(read_preferences, cfg.dataset_path, cfg.heldout_path, cfg.seed)
    heldout = build_dpo_rows(split.heldout, template, base.encoder, length)
    clean = decontaminated(cfg, split.training, preference_text)
    train = build_dpo_rows(clean.rows, template, base.encoder, length, exclude=heldout)
    train.dropped += Counter(contaminated=clean.dropped)
    require_rows(heldout, cfg.heldout_path or cfg.dataset_path, length)
    require_rows(train, cfg.dataset_path, length)
    counts = split.counts(len(train), train.dropped)
    return DPOData(train, heldout, split.bad, counts, clean)


def train_adapter(
    cfg: DPOConfig, adapted: AdaptedModel, rows: DPORows, run: AdapterRun, box: TimeBox
) -> None:
    """Train through TRL.

    Raises:
        PreflightError: the loss before the first step is not ln 2.
        BudgetError: the box is too small.
        Interrupted: a signal arrived; the adapter so far is saved.
    """
    plan = runner.first_plan(cfg, len(rows))
    order = runner.training_order(cfg, rows.lengths, plan.most)
    trainer = build_trainer(cfg, adapted, rows, plan, order)
    run.summary["first_loss"] = first_loss(trainer)
    if cfg.sft_loss_weight:
        text = "first preference loss %.4f (ln 2); the loss shown adds %g x that of chosen answers"
        log.info(text, run.summary["first_loss"], cfg.sft_loss_weight)
    lengths = [rows.tokens(number) for number in order]
    callback = runner.conduct(cfg, trainer, plan, run, box, lengths)
    card = adapted.card(cfg, "dpo", adapted.template)
    runner.end_if_stopped(callback, lambda folder: save_adapter(adapted, folder, card))


def build_trainer(
    cfg: DPOConfig, adapted: AdaptedModel, rows: DPORows, plan: StepPlan, order: list[int]
) -> PairTrainer:
    """Return TRL's trainer on the rows in their order; it adds the frozen reference adapter."""
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    columns = {name: getattr(rows, name) for name in names}
    settings = runner.trainer_settings(cfg, adapted.base.device, plan.most)
    losses = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, cfg.sft_loss_weight]}
    return PairTrainer(
        model=adapted.peft,  # type: ignore[arg-type]
        args=runner.on_one_device(TRLConfig(**settings, **losses, beta=cfg.beta)),
        train_dataset=Dataset.from_dict(columns).select(order),
        processing_class=adapted.base.tokenizer,
        optimizers=runner.optimizer_and_rate(adapted.peft, cfg, plan),
    )


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


def finish(
    cfg: DPOConfig,
    adapted: AdaptedModel,
    data: DPOData,
    run: AdapterRun,
    before: list[tuple[float, float]],
) -> Path:
    """Save the adapter and the merged model, and measure what was learned."""
    card = adapted.card(cfg, "dpo", adapted.template)
    save_adapter(adapted, cfg.output_dir / ADAPTER, card)
    rows = zip(data.heldout.prompt_ids, data.heldout.chosen_ids, strict=True)
    probes = [prompt + chosen for _, (prompt, chosen) in zip(range(PROBES), rows, strict=False)]
    merged = save_merged(adapted, cfg.output_dir / "final", card, probes)
    after = log_likelihoods(merged, data.heldout)
    gains = [(c - c0, r - r0) for (c, r), (c0, r0) in zip(after, before, strict=True)]
    run.summary["heldout_accuracy_after"] = share(after)
    run.summary["heldout_reward_accuracy"] = share(gains)
    run.summary["heldout_reward_margin"] = cfg.beta * sum(c - r for c, r in gains) / len(gains)
    log.info(
        "held-out preference accuracy %.3f -> %.3f (%d pairs), first loss %.4f: %s",
        run.summary["heldout_accuracy_before"], run.summary["heldout_accuracy_after"],
        len(after), run.summary["first_loss"], merged.folder,
    )  # fmt: skip
    return merged.folder


def log_likelihoods(loaded: LoadedModel, rows: DPORows) -> list[tuple[float, float]]:
    """Return (log p(chosen), log p(rejected)) of each pair in nats, stop tokens included.

    The first MAX_HELDOUT pairs count.
    """
    pairs = []
    columns = zip(rows.prompt_ids, rows.chosen_ids, rows.rejected_ids, strict=True)
    for prompt, chosen, rejected in islice(columns, MAX_HELDOUT):
        pairs += [(prompt, chosen), (prompt, rejected)]
    scores = [score for score, _ in score_pairs(loaded, pairs, name="held-out pairs")]
    return list(zip(scores[::2], scores[1::2], strict=True))


def share(pairs: list[tuple[float, float]]) -> float:
    """Return the share of pairs whose first value is the greater one."""
    return sum(first > second for first, second in pairs) / len(pairs)
