"""Measurements of stage 05: which data each one reads and which numbers it gives."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.chat.heldout_files import CONVERSATIONS, PREFERENCES, Origin, find_heldout
from utils.chat.rows import (
    build_dpo_rows,
    build_sft_rows,
    read_conversations,
    read_preferences,
)
from utils.checkout import PROCESSED, prepared_folders
from utils.config.evaluate import EvaluateConfig
from utils.errors import DataError, LumiError
from utils.evaluation.benchmark_files import BOOLQ, LAMBADA, WIKITEXT, Benchmark, benchmark_rows
from utils.evaluation.boolq import evaluate_boolq
from utils.evaluation.heldout import (
    answer_loss,
    answer_rates,
    answer_room,
    check_tokenizer,
    first_prompts,
    heldout_bits_per_byte,
)
from utils.evaluation.lambada import evaluate_lambada
from utils.evaluation.part_timer import PartTimer
from utils.evaluation.preferences import answer_likelihoods, preference_accuracy
from utils.evaluation.smoke import one_of_each, read_prompts, run_smoke
from utils.evaluation.statistics import skill
from utils.evaluation.wikitext import evaluate_wikitext
from utils.files import MANIFEST, read_json
from utils.model.checkpoints import LoadedModel

FAST_WIKITEXT_TOKENS = 20_000
FAST_HELDOUT_TOKENS = 50_000

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Context:
    """Settings, model and time box, the same for every measurement."""

    cfg: EvaluateConfig
    loaded: LoadedModel
    timer: PartTimer


@dataclass(frozen=True)
class Outcome:
    """Numbers of one measurement."""

    source: str
    """Where its data came from."""
    measures: dict[str, Any]
    records: list[dict[str, Any]] = field(default_factory=list)
    """One entry an item."""


@dataclass(frozen=True)
class Measurement:
    """Something that stage 05 measures."""

    name: str
    """Key in evaluation_results.json."""
    title: str
    run: Callable[[Context], Outcome]


class NotAsked(LumiError):
    """The settings leave this measurement out."""


def _heldout(context: Context) -> Outcome:
    from utils.evaluation.baselines import fit_and_score

    cfg, timer = context.cfg, context.timer
    folder = cfg.corpus_dir or fitting_corpus(context.loaded)
    check_tokenizer(context.loaded, folder)
    limit = FAST_HELDOUT_TOKENS if cfg.fast_mode else None
    # The baselines are scored on the same documents.
    found = heldout_bits_per_byte(context.loaded, folder, limit, check=timer.check)
    timer.check(0.0)
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


def _benchmark(
    context: Context, benchmark: Benchmark, score: Callable[..., Any], most: int | None, **more: Any
) -> Outcome:
    """Return what `score` measures on the first `most` items of a benchmark."""
    rows = benchmark_rows(benchmark, context.cfg.data_dir)
    found = score(context.loaded, rows, most, check=context.timer.check, **more)
    return Outcome(rows.origin, *found)


def _wikitext(context: Context) -> Outcome:
    cfg = context.cfg
    if cfg.skip_perplexity:
        raise NotAsked("left out by --skip_perplexity")
    tokens = cfg.max_wikitext_tokens or (FAST_WIKITEXT_TOKENS if cfg.fast_mode else None)
    return _benchmark(context, WIKITEXT, evaluate_wikitext, tokens, seed=cfg.seed)


def _lambada(context: Context) -> Outcome:
    cfg = context.cfg
    count = cfg.max_lambada_samples or cfg.samples
    return _benchmark(context, LAMBADA, evaluate_lambada, count, seed=cfg.seed)


def _boolq(context: Context) -> Outcome:
    count = context.cfg.max_boolq_samples or context.cfg.samples
    return _benchmark(context, BOOLQ, evaluate_boolq, count)


def _conversations(context: Context) -> Outcome:
    loaded, check = context.loaded, context.timer.check
    heldout = _own_or_given(context, CONVERSATIONS, context.cfg.sft_heldout_path)
    conversations, bad = read_conversations(heldout.path)
    length = loaded.context_length
    rows = build_sft_rows(conversations, loaded.template, loaded.encoder, length)
    loss = answer_loss(loaded, rows, check=check)
    prompts = first_prompts(conversations, context.cfg.samples)
    context.timer.begin()
    rates = answer_rates(loaded, prompts, answer_room(loaded), check=check)
    measures = {
        "answer_loss": loss.as_dict(),
        "stop_rate": rates.stopped.as_dict(),
        "empty_rate": rates.empty.as_dict(),
    }
    return heldout.outcome(measures, len(conversations), len(bad))


def _preferences(context: Context) -> Outcome:
    loaded = context.loaded
    heldout = _own_or_given(context, PREFERENCES, context.cfg.dpo_heldout_path)
    preferences, bad = read_preferences(heldout.path)
    length = loaded.context_length
    rows = build_dpo_rows(preferences, loaded.template, loaded.encoder, length)
    accuracy = preference_accuracy(answer_likelihoods(loaded, rows, check=context.timer.check))
    measures = {"accuracy": accuracy.as_dict(), "chance": 0.5, "skill": skill(accuracy, 0.5)}
    return heldout.outcome(measures, len(preferences), len(bad))


@dataclass(frozen=True)
class _HeldOutFile:
    """Rows that no training saw, and whose they are."""

    path: Path
    origin: Origin
    """What the checkpoint says of them; empty for a file that was given."""

    def outcome(self, measures: dict[str, Any], rows: int, bad: int) -> Outcome:
        """Return what was measured on them, by the name of file and run."""
        names = {"file": self.path.as_posix(), "run": None, "source": None} | self.origin
        source = self.path.as_posix()
        if self.origin:
            source = f"{source}: {rows:,} rows of {names['source']}, held out by run {names['run']}"
        if bad:
            log.warning("%d bad row(s) of %s left out", bad, self.path)
        return Outcome(source, {**measures, "rows": rows, "bad_rows": bad, "heldout": names})


def _own_or_given(context: Context, kind: str, given: Path | None) -> _HeldOutFile:
    """Return the held-out rows that the settings name, else those of the checkpoint's run.

    Raises:
        DataError: there are none; nothing else is ever measured in their place.
    """
    loaded = context.loaded
    if not loaded.card.get("template"):
        raise DataError(
            "a base checkpoint has no conversation layout: fine-tune it with `make sft`"
        )
    if given is not None:
        return _HeldOutFile(given, {})
    return _HeldOutFile(*find_heldout(kind, loaded.folder, loaded.card))


def _smoke(context: Context) -> Outcome:
    cfg = context.cfg
    prompts = read_prompts(cfg.custom_prompts)
    if cfg.fast_mode and cfg.custom_prompts is None:
        prompts = one_of_each(prompts)
    source = cfg.custom_prompts or Path("evaluation/smoke_prompts.json")
    return Outcome(
        source.name, *run_smoke(context.loaded, prompts, cfg.max_new_tokens, context.timer.check)
    )


MEASUREMENTS = (
    Measurement("heldout", "Held-out text", _heldout),
    Measurement("conversations", "Held-out conversations", _conversations),
    Measurement("preferences", "Held-out preferences", _preferences),
    Measurement("smoke", "Smoke prompts", _smoke),
    Measurement("lambada", "LAMBADA", _lambada),
    Measurement("boolq", "BoolQ", _boolq),
    Measurement("wikitext", "WikiText-2", _wikitext),
)
"""In the order they are run: the longest is the last, so that a short box loses only that one."""
