"""Supervised fine-tuning: LoRA on conversations through TRL, measured before and after.

The story is in scripts/03_sft.py.
"""

import logging
import math
import time
from typing import Any

from trl.trainer.sft_config import SFTConfig as TRLConfig
from trl.trainer.sft_trainer import SFTTrainer

from utils.chat.rows import SFTRows
from utils.chat.templates import Message, Template
from utils.config.sft import SFTConfig
from utils.errors import BudgetError, DataError
from utils.evaluation.heldout import (
    PROMPTS_AT_ONCE,
    answer_loss,
    answer_rates,
    answer_room,
    first_prompts,
)
from utils.finetuning.loops import loop_rows
from utils.finetuning.lora import AdaptedModel, new_adapter, start_chat_tokens
from utils.finetuning.run_folder import AdapterRun
from utils.finetuning.training_loop import (
    PlannedRows,
    on_one_device,
    planned_rows,
    trainer_parts,
    trainer_settings,
)
from utils.finetuning.training_rows import row_length
from utils.model.checkpoints import LoadedModel
from utils.time_box import TimeBox

MAX_PROMPTS = 100
CLOSING_S = 2.0
"""Seconds to end the process in."""

log = logging.getLogger(__name__)


def measure_base(
    base: LoadedModel, template: Template, heldout: SFTRows, run: AdapterRun
) -> list[list[Message]]:
    """Measure the held-out loss, and return the prompts that the time box leaves time for later."""
    loss = run.timed("measure", answer_loss, base, heldout)
    run.summary["heldout_loss_before"] = loss.value
    one_batch_s = generation_s(base, template, 1)
    prompts = first_prompts(heldout.conversations, prompts_in_box(one_batch_s, run.box))
    run.reserve(one_batch_s * math.ceil(len(prompts) / PROMPTS_AT_ONCE))
    return prompts


def adapt(base: LoadedModel, template: Template, cfg: SFTConfig) -> AdaptedModel:
    """Put the adapter on; chat tokens that were never trained are started and trained."""
    fresh = start_chat_tokens(base, template)
    return new_adapter(base, cfg, train_embedding=fresh, template=template)


def build_trainer(
    cfg: SFTConfig, adapted: AdaptedModel, rows: SFTRows, run: AdapterRun
) -> tuple[SFTTrainer, PlannedRows]:
    """Return TRL's trainer on the rows, and on the added ones that teach to end a loop."""
    loops = loop_rows(rows, cfg.loop_share, row_length(cfg, adapted.base), cfg.seed)
    run.summary["loop_rows"] = len(loops)
    if len(loops):
        log.info("%d added rows teach to end an answer that repeats itself", len(loops))
    columns = {
        "input_ids": rows.input_ids + loops.input_ids,
        "labels": rows.labels + loops.labels,
    }
    planned = planned_rows(cfg, rows.lengths + loops.lengths)
    settings = trainer_settings(cfg, adapted.base.device, planned.plan.most)
    args = on_one_device(TRLConfig(**settings, shuffle_dataset=False))
    return SFTTrainer(args=args, **trainer_parts(cfg, adapted, columns, planned)), planned


def compare(
    merged: LoadedModel, heldout: SFTRows, prompts: list[list[Message]], run: AdapterRun
) -> None:
    """Measure what was learned on the held-out rows, and log it."""
    run.summary["heldout_loss_after"] = answer_loss(merged, heldout).value
    run.summary |= measured_stop_rate(merged, prompts, run.box)
    before, after = (run.summary[f"heldout_loss_{when}"] for when in ("before", "after"))
    rates = (run.summary["stop_rate"], run.summary["empty_rate"])
    stops, empty = ("not measured" if rate is None else f"{rate:.0%}" for rate in rates)
    text = "held-out answer loss %.3f -> %.3f nats a token, answers that end by themselves: %s, "
    text += "empty ones: %s (%s)"
    log.info(text, before, after, stops, empty, merged.folder)


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
