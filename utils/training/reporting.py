"""What a person sees of a run: the progress line, the recorded numbers, samples, the summary."""

from collections.abc import Iterator

from utils.log import progress
from utils.model.sizing import count_parameters
from utils.training.samples import is_sample_step, sample_texts
from utils.training.sharding import is_sharded
from utils.training.trainer import Trainer


def watched_steps(trainer: Trainer) -> Iterator[int]:
    """Train with a progress line; yield each finished step until the plan is done.

    Raises:
        Interrupted: SIGINT or SIGTERM arrived; the step was finished and saved.
        LumiError: the loss is not a number.
    """
    with progress("pre-training", None) as task:
        task.done = trainer.state.step
        for step in trainer.steps():
            task.total = trainer.total
            task.advance(1, _note(trainer))
            yield step


def _note(trainer: Trainer) -> str:
    parts = [f"loss {trainer.loss:.3f}", f"{trainer.tokens_per_s:,.0f} tokens/s"]
    if trainer.val_bpb is not None:
        parts.insert(1, f"{trainer.val_bpb:.3f} bits per byte")
    if trainer.box is not None:
        left_s = max(0.0, trainer.box.budget_s - trainer.clock.elapsed_s())
        parts.append(f"box {left_s / 60:.1f} min left")
    return ", ".join(parts)


def record_step(trainer: Trainer) -> None:
    """Record loss and learning rate of the last step, and samples, where they are due."""
    if trainer.is_log_due():
        _log_step(trainer)
    if is_sample_step(trainer.state.step):
        sample(trainer)


def _log_step(trainer: Trainer) -> None:
    trainer.metrics.log(
        trainer.state.step,
        trainer.clock.elapsed_s(),
        loss=round(trainer.loss, 6),
        learning_rate=trainer.learning_rate,
        tokens=trainer.state.tokens,
        tokens_per_s=round(trainer.tokens_per_s, 1),
    )


def sample(trainer: Trainer) -> None:
    """Record what the model says after the fixed prompts."""
    if not trainer.processes.is_main and not is_sharded(trainer.model):
        return
    run = trainer.run
    with trainer.autocast():
        texts = sample_texts(trainer.model, run.data_dirs[0], run.tokenizer_dir, run.cfg.seed)
    for prompt, text in texts.items():
        time_s = trainer.clock.elapsed_s()
        trainer.metrics.event("sample", trainer.state.step, time_s, prompt=prompt, text=text)


def summary(trainer: Trainer) -> dict[str, float | int | None]:
    """Return the numbers of a finished run."""
    return {
        "parameters": count_parameters(trainer.run.cfg).total,
        "tokens": trainer.state.tokens,
        "steps": trainer.state.step,
        "val_bpb": trainer.val_bpb,
        "best_step": trainer.state.best_step,
        "seconds": round(trainer.clock.elapsed_s(), 1),
        "tokens_per_s": round(trainer.tokens_per_s, 1),
    }
