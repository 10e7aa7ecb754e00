"""What SFT and DPO share around TRL's trainers: arguments, optimizer, time box, records.

TRL owns the loss and the loop. Ours are the order of the rows (pure function of the seed, rows of
like length together), the learning rate (pure function of the plan), the end of the run (plan,
time box, signals) and what is written down.
Knows nothing about conversations and preferences.
"""

import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, islice
from typing import Any, TypeVar

import torch
from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainingArguments,
)

from utils.config.training import AdapterConfig
from utils.errors import BudgetError, Interrupted
from utils.finetuning.answer_head import use_answer_head
from utils.finetuning.callback import PlanCallback
from utils.finetuning.lora import AdaptedModel, save_adapter
from utils.finetuning.run_folder import AdapterRun
from utils.finetuning.splits import batch_order
from utils.finetuning.step_plan import StepPlan, fitting_steps
from utils.machine.precision import is_bf16_faster

MUCH_FASTER = 0.8
"""Share of a step's seconds that fewer threads must get by with: one step is a rough measure."""

log = logging.getLogger(__name__)

Arguments = TypeVar("Arguments", bound=TrainingArguments)


def quiet_libraries() -> None:
    """Silence the chatter and telemetry of the training libraries (ours is in the log)."""
    from datasets import disable_progress_bars
    from transformers.utils import logging as transformers_logging

    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    disable_progress_bars()
    for name in ("trl", "peft", "accelerate"):
        logging.getLogger(name).setLevel("ERROR")
    for module in ("trl", "peft", "torch", "transformers", "accelerate"):
        warnings.filterwarnings("ignore", module=rf"{module}(\..*)?")


def trainer_settings(cfg: AdapterConfig, device: torch.device, steps: int) -> dict[str, Any]:
    """Return the arguments SFTConfig and DPOConfig share; each overrides a default on purpose."""
    return {
        "output_dir": str(cfg.output_dir),
        "per_device_train_batch_size": cfg.batch_size,
        "gradient_accumulation_steps": cfg.gradient_accumulation_steps,
        "max_steps": steps,
        "learning_rate": cfg.learning_rate,
        "max_grad_norm": 1.0,
        "logging_steps": cfg.logging_steps,
        "logging_first_step": True,
        "train_sampling_strategy": "sequential",  # the data set is in training order
        "bf16": is_bf16_faster(device),
        "use_cpu": device.type == "cpu",
        "gradient_checkpointing": cfg.gradient_checkpointing,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": device.type == "cuda",
        "max_length": None,  # longer rows are dropped and counted before
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "seed": cfg.seed,
    }


def steps_wanted(cfg: AdapterConfig, rows: int) -> int:
    """Return the optimizer steps of all passes over `rows`, or `max_steps` where that is given."""
    if cfg.max_steps is not None:
        return cfg.max_steps
    batch = cfg.batch_size * cfg.gradient_accumulation_steps
    return max(1, math.ceil(rows * cfg.num_train_epochs / batch))


@dataclass(frozen=True)
class PlannedRows:
    """Rows of all passes, in training order, and the steps planned over them."""

    plan: StepPlan
    order: list[int]
    """Row numbers."""
    tokens: list[int]
    """Tokens of each of them."""


def planned_rows(
    cfg: AdapterConfig, lengths: Sequence[int], tokens: Sequence[int] | None = None
) -> PlannedRows:
    """Return the plan before a time box changes it.

    Rows of like `lengths` lie together; `tokens` are what a row costs, its length when None.
    """
    steps = steps_wanted(cfg, len(lengths))
    rows = steps * cfg.batch_size * cfg.gradient_accumulation_steps
    order = batch_order(lengths, cfg.batch_size, rows, cfg.seed)
    costs = lengths if tokens is None else tokens
    plan = StepPlan(steps, cfg.warmup_ratio, [(0, steps)])
    return PlannedRows(plan, order, [costs[number] for number in order])


def trainer_parts(
    cfg: AdapterConfig, adapted: AdaptedModel, columns: Mapping[str, list[Any]], rows: PlannedRows
) -> dict[str, Any]:
    """Return what both trainers of TRL are built from beside their arguments."""
    return {
        "model": adapted.peft,
        "train_dataset": Dataset.from_dict(dict(columns)).select(rows.order),
        "processing_class": adapted.base.tokenizer,
        "optimizers": optimizer_and_rate(adapted.peft, cfg, rows.plan),
    }


def on_one_device(args: Arguments) -> Arguments:
    """Keep transformers from spreading the model over all GPUs (TRL refuses that)."""
    if args.n_gpu > 1:
        log.warning("%d GPUs found: this stage uses the first one", args.n_gpu)
        args._n_gpu = 1
    return args


def optimizer_and_rate(
    model: torch.nn.Module, cfg: AdapterConfig, plan: StepPlan
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """Return AdamW over what is trainable, and the rate of the plan."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    device = trainable[0].device.type
    optimizer = torch.optim.AdamW(
        trainable, lr=cfg.learning_rate, weight_decay=0.0, fused=device in ("cpu", "cuda")
    )
    return optimizer, LambdaLR(optimizer, plan.rate)


def time_a_step(trainer: Trainer, accumulation: int) -> float:
    """Return seconds of an optimizer step, measured on two micro-steps that change nothing."""
    model: Any = trainer.model
    model.train()
    elapsed_s = 0.0
    with torch.random.fork_rng():
        for batch in islice(trainer.get_train_dataloader(), 2):  # the first one warms up
            inputs = trainer._prepare_inputs(batch)
            started = time.monotonic()
            with trainer.accelerator.autocast():
                loss: Any = trainer.compute_loss(model, inputs)
            loss.backward()
            elapsed_s = time.monotonic() - started
    model.zero_grad()
    getattr(trainer, "_metrics", {"train": {}})["train"].clear()
    return elapsed_s * accumulation


def fastest_step(measure: Callable[[], float]) -> float:
    """Set the number of CPU threads that `measure` is fastest with; return its seconds then.

    A step of a small model is hundreds of short parallel parts, and each waits for its last thread.
    Where another program keeps a core busy, all threads wait for the one without a core, and fewer
    are several times as fast. Half as many are tried as long as that helps much.
    """
    best_s, threads = measure(), torch.get_num_threads()
    all_s, everything = best_s, threads
    while threads > 1:
        torch.set_num_threads(threads // 2)
        step_s = measure()
        if step_s > MUCH_FASTER * best_s:
            torch.set_num_threads(threads)
            break
        best_s, threads = step_s, threads // 2
    if threads < everything:
        text = "%d of %d threads: a step takes %.2f s instead of %.2f s"
        log.info(text, threads, everything, best_s, all_s)
    return best_s


def train(trainer: Trainer, adapted: AdaptedModel, rows: PlannedRows, run: AdapterRun) -> None:
    """Fit the plan into the time box and run TRL's loop.

    Raises:
        BudgetError: the time box or the memory is too small.
        Interrupted: a signal has arrived; the adapter so far is saved.
    """
    cfg, box, plan = run.cfg, run.box, rows.plan
    batch = cfg.batch_size * cfg.gradient_accumulation_steps
    tokens = [sum(rows.tokens[at : at + batch]) for at in range(0, len(rows.tokens), batch)]
    step_s = None
    if trainer.args.use_cpu:
        use_answer_head(trainer.accelerator.unwrap_model(trainer.model).get_base_model())
    if box.minutes is not None:
        measure = partial(time_a_step, trainer, cfg.gradient_accumulation_steps)
        step_s = fastest_step(measure) if trainer.args.use_cpu else measure()
        plan.events[0] = (0, fitting_steps(box, step_s, plan.most))
    threads = torch.get_num_threads()
    run.event("plan", 0, total=plan.total, most=plan.most, step_s=step_s, threads=threads)
    log.info("%d steps of %d rows planned (all passes: %d)", plan.total, batch, plan.most)
    callback = PlanCallback(run, plan, box, list(accumulate(tokens)))
    for theirs in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(theirs)
    trainer.add_callback(callback)
    started = time.monotonic()
    try:
        trainer.train()
    except torch.OutOfMemoryError as error:
        raise BudgetError(
            f"out of memory with batch_size {cfg.batch_size}: halve --batch_size and double "
            "--gradient_accumulation_steps (the same mathematics)"
        ) from error
    seconds = time.monotonic() - started
    done = callback.tokens[max(trainer.state.global_step, 1) - 1]
    run.summary |= {"steps": trainer.state.global_step, "tokens": done}
    run.summary |= {"train_seconds": round(seconds, 1), "tokens_per_s": round(done / seconds, 1)}
    if callback.stopped_at is not None:
        raise Interrupted(
            f"adapter saved at step {callback.stopped_at} in {save_adapter(adapted, run)}: run the "
            "same command to start again (this run is then moved aside)"
        )
