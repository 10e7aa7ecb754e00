"""The parts of an evaluation: which data each one reads and what it reports."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.checkout import PROCESSED, prepared_folders
from utils.config.evaluate import EvaluateConfig
from utils.errors import DataError, LumiError
from utils.evaluation.benchmark_files import BOOLQ, LAMBADA, WIKITEXT, benchmark_rows, read_rows
from utils.evaluation.boolq import evaluate_boolq
from utils.evaluation.heldout import (
    answer_loss,
    answer_rates,
    check_tokenizer,
    heldout_bits_per_byte,
    messages_of,
)
from utils.evaluation.lambada import evaluate_lambada
from utils.evaluation.preferences import preference_accuracy
from utils.evaluation.smoke import one_of_each, read_prompts, run_smoke
from utils.evaluation.statistics import skill
from utils.evaluation.timebox import TimeBox
from utils.evaluation.wikitext import evaluate_wikitext
from utils.files import MANIFEST, read_json
from utils.model.checkpoints import LoadedModel

FAST_WIKITEXT_TOKENS = 20_000
FAST_HELDOUT_TOKENS = 50_000


@dataclass(frozen=True)
class Context:
    """What every part gets."""

    cfg: EvaluateConfig
    loaded: LoadedModel
    box: TimeBox


@dataclass(frozen=True)
class Outcome:
    """What a part measured."""

    source: str
    """Where its data came from."""
    measures: dict[str, Any]
    records: list[dict[str, Any]] = field(default_factory=list)
    """One entry an item."""


@dataclass(frozen=True)
class Part:
    """One part of the evaluation."""

    name: str
    """Key in evaluation_results.json."""
    title: str
    run: Callable[[Context], Outcome]


class NotAsked(LumiError):
    """The settings leave this part out."""


def _heldout(context: Context) -> Outcome:
    from utils.evaluation.baselines import fit_and_score

    cfg, box = context.cfg, context.box
    folder = cfg.corpus_dir or fitting_corpus(context.loaded)
    check_tokenizer(context.loaded, folder)
    limit = FAST_HELDOUT_TOKENS if cfg.fast_mode else None
    # The baselines are scored on the same documents.
    found = heldout_bits_per_byte(context.loaded, folder, limit, check=box.check)
    box.check(0.0)
    baselines = fit_and_score(folder, max_val_tokens=limit)
    measures = {
        "bits_per_byte": found.interval.as_dict(),
        "unigram_bits_per_byte": baselines.unigram_bpb,
        "bigram_bits_per_byte": baselines.bigram_bpb,
        "tokens": found.tokens,
        "bytes": found.bytes,
        "documents": found.documents,
        "is_whole_split": found.is_whole_split,
    }
    return Outcome(folder.name, measures)


def fitting_corpus(loaded: LoadedModel, root: Path = PROCESSED) -> Path:
    """Return the newest prepared folder with the checkpoint's tokenizer.

    The data set that the checkpoint names goes before the others.

    Raises:
        DataError: there is none.
    """
    wanted, name = loaded.card.get("tokenizer_sha256"), loaded.card.get("dataset")
    folders = prepared_folders(root) if wanted is not None else []
    fitting = [
        path for path in folders if read_json(path / MANIFEST).get("tokenizer_sha256") == wanted
    ]
    if not fitting:
        raise DataError(
            f"no prepared folder in {root} has the tokenizer of {loaded.folder}: "
            "pass the one it was trained on as --corpus_dir"
        )
    return next((path for path in fitting if path.name == name), fitting[0])


def _wikitext(context: Context) -> Outcome:
    cfg = context.cfg
    if cfg.skip_perplexity:
        raise NotAsked("left out by --skip_perplexity")
    data = benchmark_rows(WIKITEXT, cfg.data_dir)
    limit = cfg.max_wikitext_tokens or (FAST_WIKITEXT_TOKENS if cfg.fast_mode else None)
    return Outcome(
        data.origin,
        *evaluate_wikitext(context.loaded, data, limit, seed=cfg.seed, check=context.box.check),
    )


def _lambada(context: Context) -> Outcome:
    cfg = context.cfg
    data = benchmark_rows(LAMBADA, cfg.data_dir)
    count = cfg.max_lambada_samples or cfg.samples
    return Outcome(
        data.origin,
        *evaluate_lambada(context.loaded, data, count, seed=cfg.seed, check=context.box.check),
    )


def _boolq(context: Context) -> Outcome:
    cfg = context.cfg
    data = benchmark_rows(BOOLQ, cfg.data_dir)
    count = cfg.max_boolq_samples or cfg.samples
    return Outcome(
        data.origin, *evaluate_boolq(context.loaded, data, count, check=context.box.check)
    )


def _conversations(context: Context) -> Outcome:
    path = context.cfg.sft_heldout_path
    rows = _heldout_rows(context, path)
    check = context.box.check
    loss = answer_loss(context.loaded, rows, check=check)
    prompts = [messages_of(row)[:-1] for row in rows[: context.cfg.samples]]
    context.box.begin()
    rates = answer_rates(context.loaded, prompts, check=check)
    measures = {
        "answer_loss": loss.as_dict(),
        "stop_rate": rates.stopped.as_dict(),
        "empty_rate": rates.empty.as_dict(),
        "rows": len(rows),
    }
    return Outcome(path.as_posix(), measures)


def _preferences(context: Context) -> Outcome:
    path = context.cfg.dpo_heldout_path
    rows = _heldout_rows(context, path)
    accuracy = preference_accuracy(context.loaded, rows, check=context.box.check)
    measures = {
        "accuracy": accuracy.as_dict(),
        "chance": 0.5,
        "skill": skill(accuracy, 0.5),
        "rows": len(rows),
    }
    return Outcome(path.as_posix(), measures)


def _heldout_rows(context: Context, path: Path) -> list[dict[str, Any]]:
    """Read held-out conversations or preferences for a chat checkpoint."""
    if not context.loaded.card.get("template"):
        raise DataError(
            "a base checkpoint has no conversation layout: fine-tune it with `make sft`"
        )
    if not path.is_file():
        raise DataError(
            f"{path} not found: run `make create-sample-datasets`, or pass your own file"
        )
    return read_rows(path)


def _smoke(context: Context) -> Outcome:
    cfg = context.cfg
    prompts = read_prompts(cfg.custom_prompts)
    if cfg.fast_mode and cfg.custom_prompts is None:
        prompts = one_of_each(prompts)
    source = cfg.custom_prompts or Path("evaluation/smoke_prompts.json")
    return Outcome(
        source.name, *run_smoke(context.loaded, prompts, cfg.max_new_tokens, context.box.check)
    )


PARTS = (
    Part("heldout", "Held-out text", _heldout),
    Part("conversations", "Held-out conversations", _conversations),
    Part("preferences", "Held-out preferences", _preferences),
    Part("smoke", "Smoke prompts", _smoke),
    Part("lambada", "LAMBADA", _lambada),
    Part("boolq", "BoolQ", _boolq),
    Part("wikitext", "WikiText-2", _wikitext),
)
"""In the order they are run: the longest is the last, so that a short box loses only that one."""
