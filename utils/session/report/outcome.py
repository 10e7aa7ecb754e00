"""Reads what a finished stage left behind: the numbers of the summary and one line for the table.

A stage that exits with 0 and leaves no result has failed; nothing here fills a gap with a guess.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.checkout import CHECKPOINTS, RESULTS
from utils.errors import CheckpointError, LumiError
from utils.files import MANIFEST, read_json
from utils.run_folder import RunFolder
from utils.session.state.stages import StageContext
from utils.words import count, number, percent

KEYS = {
    "pretrain": ("parameters", "tokens", "val_bpb"),
    "sft": ("heldout_loss_before", "heldout_loss_after", "stop_rate"),
    "dpo": ("first_loss", "heldout_accuracy_before", "heldout_accuracy_after"),
}
"""What the summary of a session takes from a run's own summary."""


def read_outcome(stage: str, context: StageContext) -> tuple[dict[str, Any], str]:
    """Return (numbers for the summary, one line for the table) of a finished stage.

    Raises:
        LumiError: its result is missing or unfinished.
    """
    work_dir = context.cfg.work_dir
    if stage == "prepare" and context.corpus_dir is not None:
        return {}, _corpus_line(work_dir / context.corpus_dir)
    if stage == "samples":
        return {}, _samples_line(context.folder / "data")
    if stage in KEYS:
        run = RunFolder.read(work_dir / run_folder(stage, context))
        numbers = run.finished_numbers(KEYS[stage])
        if stage == "pretrain" and context.corpus_dir is not None:
            numbers |= baselines(run, work_dir / context.corpus_dir)
        return numbers, _LINES[stage](numbers)
    if stage == "evaluate":
        folder = RESULTS / context.folder.name
        results = read_json(work_dir / folder / "evaluation_results.json")["results"]
        return results, _evaluation_line(results)
    return {}, "answered over HTTP" if stage == "serve" else ""


def run_folder(stage: str, context: StageContext) -> Path:
    """Return the folder of a training stage's run, relative to the working folder."""
    return context.pretrain_dir if stage == "pretrain" else CHECKPOINTS / stage


def is_finished(stage: str, context: StageContext) -> bool:
    """Return whether this session's own run of a training stage is done.

    So it is where the session died after the stage had ended and before it was noted.
    """
    if stage not in KEYS:
        return False
    try:
        run = RunFolder.read(context.cfg.work_dir / run_folder(stage, context))
    except LumiError:  # none there yet, or the damaged one of an earlier run
        return False
    return run.is_finished and run.is_of(context.folder)


def require_own_models(summary: Mapping[str, Any], context: StageContext) -> None:
    """Check that the finished training stages of a session left the models that lie there now.

    Raises:
        CheckpointError: one was replaced or removed since, by a later session for example.
    """
    finished = {entry["name"] for entry in summary["stages"] if entry["status"] == "finished"}
    for stage in KEYS:
        if stage not in finished:
            continue
        folder = context.cfg.work_dir / run_folder(stage, context)
        try:
            numbers = RunFolder.read(folder).finished_numbers(KEYS[stage])
            is_own = numbers.items() <= summary[stage].items()
        except LumiError:
            is_own = False
        if not is_own:
            raise CheckpointError(
                f"{folder} is not the model that step {stage} of session {summary['session']} "
                "left there: a later run replaced it; start a new session"
            )


def baselines(run: RunFolder, corpus: Path) -> dict[str, float]:
    """Return what counting reaches on the validation tokens that the run was scored on."""
    from utils.evaluation.baselines import fit_and_score

    eval_tokens = run.settings.get("eval_tokens")
    # A time box may score fewer tokens than the settings ask for; stage 02 writes how many.
    for event in run.plan_events():
        eval_tokens = event["tokens"] if event.get("event") == "validation" else eval_tokens
    found = fit_and_score(corpus, max_val_tokens=eval_tokens)
    return {"unigram_bpb": found.unigram_bpb, "bigram_bpb": found.bigram_bpb}


def _evaluation_line(results: dict[str, Any]) -> str:
    parts = results.values()
    done = sum(part.get("status") == "ok" for part in parts)
    line = f"{done} of {len(parts)} parts measured"
    stops, empty = (evaluated_rate(results, name) for name in ("stop_rate", "empty_rate"))
    line += "" if stops is None else f", {percent(stops)} of answers stop"
    return line + (f", {percent(empty)} are empty" if empty else "")


def evaluated_rate(results: Mapping[str, Any], name: str) -> float | None:
    """Return the share of held-out questions whose answer ended by itself, or was empty.

    None where that was not measured.
    """
    measures = results.get("conversations", {}).get("measures") or {}
    return measures[name]["value"] if name in measures else None


def _corpus_line(folder: Path) -> str:
    manifest = read_json(folder / MANIFEST)
    train = manifest["splits"]["train"]
    return (
        f"{train['documents']:,} documents, {count(train['tokens'])} tokens, "
        f"vocabulary of {manifest['vocab_size']:,}"
    )


def _samples_line(folder: Path) -> str:
    rows = {name: len(read_json(folder / f"{name}_dataset.json")) for name in ("sft", "dpo")}
    return f"{rows['sft']:,} conversations, {rows['dpo']:,} preference pairs"


def _pretrain_line(numbers: dict[str, Any]) -> str:
    return (
        f"{count(numbers['parameters'])} parameters, {count(numbers['tokens'])} tokens, "
        f"{number(numbers['val_bpb'])} bits per byte{_against(numbers)}"
    )


def _against(numbers: dict[str, Any]) -> str:
    bigram = numbers.get("bigram_bpb")
    return "" if bigram is None else f" (bigram table {number(bigram)})"


def _sft_line(numbers: dict[str, Any]) -> str:
    return (
        f"held-out loss {number(numbers['heldout_loss_before'])} -> "
        f"{number(numbers['heldout_loss_after'])}, {percent(numbers['stop_rate'])} of answers stop"
    )


def _dpo_line(numbers: dict[str, Any]) -> str:
    before, after = numbers["heldout_accuracy_before"], numbers["heldout_accuracy_after"]
    return (
        f"held-out preferences {percent(before)} -> {percent(after)}, "
        f"first loss {number(numbers['first_loss'], 4)}"
    )


_LINES = {"pretrain": _pretrain_line, "sft": _sft_line, "dpo": _dpo_line}
