"""Supervised fine-tuning: LoRA on conversations through TRL, merged and measured."""

import logging
import math
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl.trainer.sft_config import SFTConfig as TRLConfig
from trl.trainer.sft_trainer import SFTTrainer

from utils.chat.rows import (
    BadRow,
    SFTRows,
    build_sft_rows,
    read_conversations,
)
from utils.chat.templates import TEMPLATES, Message, Template
from utils.config.sft import SFTConfig
from utils.errors import BudgetError, DataError
from utils.evaluation.heldout import PROMPTS_AT_ONCE, answer_rates
from utils.evaluation.likelihood import score_rows
from utils.finetuning import training_loop as runner
from utils.finetuning.contamination import (
    Screening,
    conversation_text,
    decontaminated,
)
from utils.finetuning.loops import loop_rows
from utils.finetuning.lora import (
    ADAPTER,
    AdaptedModel,
    base_checkpoint,
    new_adapter,
    save_adapter,
    save_merged,
    start_chat_tokens,
)
from utils.finetuning.run_folder import AdapterRun, recorded_run
from utils.finetuning.splits import MAX_HELDOUT, measured, read_split, require_rows
from utils.model.checkpoints import LoadedModel
from utils.time_box import TimeBox

MAX_PROMPTS = 100
MAX_NEW_TOKENS = 128
CLOSING_S = 2.0
"""Seconds to end the process in."""
PROBES = 4
"""Held-out rows on which the merged model is compared with the adapter."""

log = logging.getLogger(__name__)


@dataclass
class SFTData:
    """Training and held-out rows, and what was left out."""

    train: SFTRows
    heldout: SFTRows
    bad: list[BadRow]
    counts: dict[str, Any]
    screening: Screening[list[Message]]


def run_sft(cfg: SFTConfig) -> Path:
    """Run stage 03 and return the folder of the merged model.

    Raises:
        LumiError: model or data cannot be used, the box is too small, a check failed.
        Interrupted: a signal arrived; the adapter so far is saved.
    """
    runner.quiet_libraries()
    box = TimeBox(cfg.max_minutes)
    with recorded_run("sft", cfg) as run:
        template = TEMPLATES[cfg.prompt_template]
        started = time.monotonic()
        base = base_checkpoint(cfg.model_path)
        load_s = time.monotonic() - started
        run.refuse_own_output(base.folder)
        data = load_data(cfg, base, template)
        run.start(data.bad, data.screening, **runner.fast_paths(base.device))
        log.info("%s", f"SFT of {base.folder} on {data.counts}")
        run.summary |= {"rows": len(data.train), "dropped": data.counts["dropped"]}
        run.summary |= {"counts": data.counts, "heldout_rows": measured(data.heldout)}
        started = time.monotonic()
        run.summary["heldout_loss_before"] = answer_loss(base, data.heldout)
        evaluation_s = time.monotonic() - started
        one_batch_s = generation_s(base, template, 1)
        prompts = first_prompts(data.heldout.conversations)[: prompts_in_box(one_batch_s, box)]
        writing_s = one_batch_s * math.ceil(len(prompts) / PROMPTS_AT_ONCE)
        box.reserve_s = runner.reserve_s(load_s, evaluation_s + writing_s)
        adapted = adapt(cfg, base, template)
        train_adapter(cfg, adapted, data.train, run, box)
        merged = finish(cfg, adapted, data.heldout, run)
        run.summary |= measured_stop_rate(merged, prompts, box)
        report(run, merged)
        return merged.folder


def load_data(cfg: SFTConfig, base: LoadedModel, template: Template) -> SFTData:
    """Read, encode and count the rows.

    Raises:
        DataError: a file is missing, or nothing is left to learn from.
    """
    length = run_length(cfg, base)
    split = read_split(read_conversations, cfg.dataset_path, cfg.heldout_path, cfg.seed)
    heldout = build_sft_rows(split.heldout, template, base.encoder, length)
    clean = decontaminated(cfg, split.training, conversation_text)
    train = build_sft_rows(clean.rows, template, base.encoder, length, exclude=heldout)
    train.dropped += Counter(contaminated=clean.dropped)
    require_rows(heldout, cfg.heldout_path or cfg.dataset_path, length)
    require_rows(train, cfg.dataset_path, length)
    counts = split.counts(len(train), train.dropped)
    return SFTData(train, heldout, split.bad, counts, clean)


def run_length(cfg: SFTConfig, base: LoadedModel) -> int:
    """Return the tokens of the longest row."""
    return min(cfg.max_length or base.context_length, base.context_length)


def adapt(cfg: SFTConfig, base: LoadedModel, template: Template) -> AdaptedModel:
    """Put the adapter on; chat tokens that were never trained are started and trained."""
    fresh = start_chat_tokens(base, template)
    return new_adapter(base, cfg, train_embedding=fresh)


def train_adapter(
    cfg: SFTConfig, adapted: AdaptedModel, rows: SFTRows, run: AdapterRun, box: TimeBox
) -> None:
    """Train through TRL.

    Raises:
        BudgetError: the box is too small.
        Interrupted: a signal arrived; the adapter so far is saved.
    """
    loops = loop_rows(rows, cfg.loop_share, run_length(cfg, adapted.base), cfg.seed)
    run.summary["loop_rows"] = len(loops)
    if len(loops):
        log.info("%d added rows teach to end an answer that repeats itself", len(loops))
    columns = {
        "input_ids": rows.input_ids + loops.input_ids,
        "labels": rows.labels + loops.labels,
    }
    tokens = rows.lengths + loops.lengths
    plan = runner.first_plan(cfg, len(tokens))
    order = runner.training_order(cfg, tokens, plan.most)
    settings = runner.trainer_settings(cfg, adapted.base.device, plan.most)
    trainer = SFTTrainer(
        model=adapted.peft,  # type: ignore[arg-type]
        args=runner.on_one_device(TRLConfig(**settings, shuffle_dataset=False)),
        train_dataset=Dataset.from_dict(columns).select(order),
        processing_class=adapted.base.tokenizer,
        optimizers=runner.optimizer_and_rate(adapted.peft, cfg, plan),
    )
    lengths = [tokens[number] for number in order]
    callback = runner.conduct(cfg, trainer, plan, run, box, lengths)
    card = adapted.card(cfg, "sft", TEMPLATES[cfg.prompt_template])
    runner.end_if_stopped(callback, lambda folder: save_adapter(adapted, folder, card))


def finish(cfg: SFTConfig, adapted: AdaptedModel, heldout: SFTRows, run: AdapterRun) -> LoadedModel:
    """Save the adapter and the merged model, which is returned, and measure the held-out loss."""
    card = adapted.card(cfg, "sft", TEMPLATES[cfg.prompt_template])
    save_adapter(adapted, cfg.output_dir / ADAPTER, card)
    probes = heldout.input_ids[:PROBES]
    merged = save_merged(adapted, cfg.output_dir / "final", card, probes)
    run.summary["heldout_loss_after"] = answer_loss(merged, heldout)
    return merged


def report(run: AdapterRun, merged: LoadedModel) -> None:
    """Log what came out."""
    before, after = (run.summary[f"heldout_loss_{when}"] for when in ("before", "after"))
    rates = (run.summary["stop_rate"], run.summary["empty_rate"])
    stops, empty = ("not measured" if rate is None else f"{rate:.0%}" for rate in rates)
    text = "held-out answer loss %.3f -> %.3f nats a token, answers that end by themselves: %s, "
    text += "empty ones: %s (%s)"
    log.info(text, before, after, stops, empty, merged.folder)


def answer_loss(loaded: LoadedModel, rows: SFTRows) -> float:
    """Return the mean negative log-likelihood (nats) of an answer token, stop tokens included.

    The first MAX_HELDOUT rows count.
    """
    scored = [
        (ids[:-1], labels[1:]) for ids, labels in zip(rows.input_ids, rows.labels, strict=True)
    ]
    scores = score_rows(loaded.model, scored[:MAX_HELDOUT], name="held-out answers")
    return -sum(score.total for score in scores) / sum(len(score.log_probs) for score in scores)


def first_prompts(conversations: list[list[Message]]) -> list[list[Message]]:
    """Return each conversation up to its first answer, at most MAX_PROMPTS, no prompt twice."""
    prompts: dict[str, list[Message]] = {}
    for messages in conversations:
        end = next(n for n, message in enumerate(messages) if message["role"] == "assistant")
        prompts.setdefault(repr(messages[:end]), messages[:end])
    return list(prompts.values())[:MAX_PROMPTS]


def measured_stop_rate(
    loaded: LoadedModel, prompts: list[list[Message]], box: TimeBox
) -> dict[str, Any]:
    """Return the rates of answers and their number; None where the box has no time left."""

    def check(_: float) -> None:
        if box.left_s < CLOSING_S:
            raise BudgetError("the time box is used up")

    try:
        rates = answer_rates(loaded, prompts, answer_room(loaded), check=check)
    except (BudgetError, DataError) as error:
        log.warning("stop rate not measured: %s", error)
        return {"stop_rate": None, "empty_rate": None, "stop_rate_prompts": 0}
    stopped, empty = rates.stopped, rates.empty
    return {
        "stop_rate": stopped.value,
        "empty_rate": empty.value,
        "stop_rate_prompts": stopped.count,
    }


def answer_room(loaded: LoadedModel) -> int:
    """Return the longest answer of the stop rate: 128 tokens, less where the context is short."""
    return min(MAX_NEW_TOKENS, loaded.context_length // 2)


def generation_s(loaded: LoadedModel, template: Template, prompts: int) -> float:
    """Return the seconds that `prompts` answers of full length take, from one short trial."""
    room, tokens = answer_room(loaded), 8
    trial = [[{"role": "user", "content": f"What is {n}?"}] for n in range(PROMPTS_AT_ONCE)]
    started = time.monotonic()
    answer_rates(loaded, trial, tokens, template)
    trial_s = time.monotonic() - started
    return trial_s * room / tokens * math.ceil(prompts / PROMPTS_AT_ONCE)


def prompts_in_box(one_batch_s: float, box: TimeBox) -> int:
    """Return how many prompts the stop rate may use: at most a tenth of the box goes into it."""
    if box.minutes is None:
        return MAX_PROMPTS
    batches = int(0.1 * box.left_s / max(one_batch_s, 1e-9))
    return min(MAX_PROMPTS, PROMPTS_AT_ONCE * max(1, batches))
