"""Plans a session: costs on this machine, the model, each stage's share; re-planned as it goes.

Every decision is an event in plan.json before it takes effect, and a resumed session reads the
model and the costs from there instead of measuring again.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from utils.checkout import CONFIG
from utils.config.base import read_config_file
from utils.config.pretrain import PretrainConfig
from utils.config.session import SessionConfig
from utils.errors import BudgetError, ConfigError
from utils.files import write_json
from utils.machine.probe import Speed, cpu_slowdown, measure_machine
from utils.planning.model_choice import ModelPlan, choose_model, expect_model
from utils.session.state.budget import (
    TIGHT,
    TRAINING_STAGES,
    Costs,
    estimate_costs,
    minimum_minutes,
    plan_seconds,
)
from utils.session.state.corpus import Corpus, find_corpus, is_prepared, sample_limit
from utils.session.state.display import Display
from utils.session.state.folder import Session
from utils.session.state.stages import StageContext
from utils.words import count, size

NOMINAL_IMPORT_S = 6.0
"""Import of torch and transformers on the reference machine, before it is measured."""
SAVE_EVERY_S = 120.0
"""Seconds of training between two checkpoints, so that a crash costs little."""
FINETUNING_SLOWNESS = 5.0
"""How many times slower than pre-training a token of SFT or DPO is at most (plain HF: 4 times)."""
BYTES_PER_DATA_TOKEN = 2.5
"""Bytes of a JSON row per token of training."""
REPLAN_S = 1.0
"""Changes below this many seconds are no event."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SessionPlan:
    """What a session has decided."""

    context: StageContext
    costs: Costs
    model: ModelPlan | None


def plan_session(
    session: Session, display: Display, measure: Callable[[], Speed] = measure_machine
) -> SessionPlan:
    """Return the plan of a session, measured and written down the first time.

    Raises:
        BudgetError: the box is too small; the minimum for this machine is named.
        ConfigError: the corpus, a size or a setting is wrong.
    """
    cfg = session.cfg
    corpus = find_corpus(cfg) if "prepare" in cfg.stages else None
    if "costs" not in session.plan:
        _measure_and_plan(session, corpus, display, measure)
    model = session.plan["model"] and ModelPlan(**session.plan["model"])
    return SessionPlan(_context(session, corpus, model), Costs(**session.plan["costs"]), model)


def _measure_and_plan(
    session: Session, corpus: Corpus | None, display: Display, measure: Callable[[], Speed]
) -> None:
    cfg, summary = session.cfg, session.summary
    best, slowdown = cpu_slowdown()
    raw_mb = (corpus.raw_bytes or 0.0) / 1e6 if corpus else 0.0
    box = "without a time box" if cfg.minutes is None else f"in {cfg.minutes:g} min"
    display.say(f"Session {cfg.name} {box}: {', '.join(cfg.stages)}")
    display.say(f"  folder {session.folder}")
    speed = measure()
    summary["machine"] = speed.machine | {"device": speed.device, "gflops": speed.flops / 1e9}
    costs = estimate_costs(slowdown, speed.import_s, raw_mb)
    # Other programs may end soon: they make the plan careful, they are no reason to refuse a box.
    least = estimate_costs(best, 0.0, 0.0).least
    costs = replace(costs, tight=TIGHT * best / slowdown, least=least)
    if "pretrain" in cfg.stages:
        model, costs = _plan_model(session, corpus, speed, costs)
        session.plan["model"] = asdict(model)
        write_json(session.folder / "pretrain_config.json", model.settings)
        session.event("model", **asdict(model))
        display.say(f"  model {model.settings['model_name']}, {describe(model)}: {model.reason}")
    _say_machine(speed, display)
    session.plan["costs"] = asdict(costs)
    session.plan["speed"] = asdict(speed)
    session.stage("measure").update(
        status="finished", used=round(session.used_s / 60, 3), result=_machine_line(speed)
    )
    session.save()


def _plan_model(
    session: Session, corpus: Corpus | None, speed: Speed, costs: Costs
) -> tuple[ModelPlan, Costs]:
    """Return the model for the box, and the costs now that its tokenizer is known."""
    cfg = session.cfg
    overrides = session.plan["overrides"].get("pretrain", {})
    paths = [_size_config(size) for size in cfg.model_sizes]
    raw_bytes = corpus.raw_bytes if corpus else None
    if cfg.minutes is None:
        return _full_size(paths[-1], overrides, speed), costs
    planned_s = _divide(session, costs, cfg.stages)["pretrain"]
    train_s = max(planned_s - costs.fixed["pretrain"], costs.least["pretrain"])
    model = choose_model(paths, train_s, speed, raw_bytes, overrides)
    if corpus and is_prepared(corpus, model.settings["vocab_size"], cfg.work_dir):
        costs = replace(costs, fixed={**costs.fixed, "prepare": 4.0 + speed.import_s})
    steps_per_s = model.tokens_per_s / model.tokens_per_step
    settings = {"save_steps": max(20, round(SAVE_EVERY_S * steps_per_s)), **model.settings}
    cap = model.max_steps(raw_bytes)
    if cap is not None and cap < steps_per_s * train_s:
        settings.setdefault("max_steps", cap)
    return replace(model, settings=settings), costs


def _full_size(path: Path, overrides: Mapping[str, Any], speed: Speed) -> ModelPlan:
    """Return the configuration as it is in its file: what a pipeline without a box trains."""
    settings = {**read_config_file(path), **overrides}
    return replace(
        expect_model(settings, 0.0, speed, None),
        reason=f"the whole of {path.name}, without a time box",
    )


def _size_config(size: str) -> Path:
    path = Path(size) if size.endswith(".json") else CONFIG / f"{size}.json"
    if not path.is_file():
        raise ConfigError(f"model size {size!r}: no {path}: use nano, tiny, small or base")
    return path


def _context(session: Session, corpus: Corpus | None, model: ModelPlan | None) -> StageContext:
    context = StageContext(session.cfg, session.folder, session.plan["overrides"])
    if model is not None:
        context = replace(context, model_name=model.settings["model_name"])
    if corpus is None:
        return context
    settings = model.settings if model else corpus.prepare.model_dump()
    vocab_size = settings["vocab_size"]
    own: dict[str, Any] = dict(corpus.settings)
    if vocab_size != corpus.prepare.vocab_size:
        own["dataset_name"] = corpus.folder_name(vocab_size)
        own["vocab_size"] = vocab_size
    if settings["sequence_length"] != corpus.prepare.sequence_length:
        own["sequence_length"] = settings["sequence_length"]
    if model is not None and session.box_s is not None:
        own |= sample_limit(corpus, model.tokens)
    return replace(context, corpus_settings=own, corpus_dir=corpus.folder(vocab_size))


def replan(session: Session, plan: SessionPlan) -> dict[str, float | None]:
    """Return the seconds of each stage that is left and of the report (None without a box).

    Raises:
        BudgetError: what is left is too little for the stages that are left.
    """
    stages = [s for s in session.cfg.stages if session.stage(s)["status"] != "finished"]
    if session.box_s is None:
        return dict.fromkeys([*stages, "report"])
    seconds = _divide(session, plan.costs, stages, _useful_s(session, plan))
    last = session.plan.get("planned_s", {})
    if any(abs(seconds[stage] - last.get(stage, 0.0)) > REPLAN_S for stage in seconds):
        session.plan["planned_s"] = {stage: round(s, 1) for stage, s in seconds.items()}
        session.event("replan" if last else "plan", seconds=session.plan["planned_s"])
    for stage, planned_s in seconds.items():
        session.stage(stage)["planned"] = round(planned_s / 60, 3)
    return dict(seconds)


def _divide(
    session: Session,
    costs: Costs,
    stages: list[str] | tuple[str, ...],
    useful_s: Mapping[str, float] | None = None,
) -> dict[str, float]:
    shares = {**dict.fromkeys(TRAINING_STAGES, 0.1), **session.cfg.shares}
    box_s = session.box_s or 0.0
    return plan_seconds(session.left_s, box_s, stages, costs, shares, useful_s or {})


def _useful_s(session: Session, plan: SessionPlan) -> dict[str, float]:
    """Return the seconds of training that the SFT and DPO data can fill, once they are there."""
    if plan.model is None:
        return {}
    context, rate = plan.context, plan.model.tokens_per_s / FINETUNING_SLOWNESS
    useful = {}
    for stage, path in (("sft", context.sft_dataset), ("dpo", context.dpo_dataset)):
        full = session.cfg.work_dir / path
        if full.is_file():
            epochs = float(context.settings.get(stage, {}).get("num_train_epochs", 1))
            useful[stage] = epochs * full.stat().st_size / BYTES_PER_DATA_TOKEN / rate
    return useful


def announce(display: Display, title: str, planned_s: float | None, left_s: float) -> None:
    """Show the header of a stage: its number, its planned time and what is left of the box."""
    if planned_s is None:
        display.begin(title)
    else:
        display.begin(
            f"{title}  planned {planned_s / 60:.1f} min  {left_s / 60:.1f} min left in the time box"
        )


def describe(model: ModelPlan) -> str:
    """Return the shape of a model in words."""
    s = model.settings
    return (
        f"{s['n_layer']} layers x {s['d_model']}, vocabulary of {s['vocab_size']:,}, "
        f"{count(model.parameters)} parameters, rows of {s['sequence_length']} tokens"
    )


def _machine_line(speed: Speed) -> str:
    return f"{speed.flops / 1e9:,.0f} GFLOP/s in {speed.precision} on {speed.device}"


def _say_machine(speed: Speed, display: Display) -> None:
    facts = speed.machine
    display.say(
        f"  machine {facts.get('cpu', '')}, {facts.get('cores', '?')} cores, "
        f"{_machine_line(speed)}, {size(speed.memory_bytes)} free"
    )


@contextmanager
def _naming(stage: str) -> Iterator[None]:
    """Put the step that a wrong setting belongs to in front of its message."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"step {stage}: {error}") from error


def check_settings(cfg: SessionConfig) -> None:
    """Refuse what would fail only later, before the session has a folder.

    Raises:
        ConfigError: a size, a corpus or a data set is not there.
        BudgetError: the box is too small; the minimum for this machine is named.
    """
    for path in (cfg.sft_dataset, cfg.dpo_dataset, cfg.eval_data_dir, cfg.model_path):
        if path is not None and not path.expanduser().exists():
            raise ConfigError(f"{path}: there is no such file or folder: check the path")
    if "pretrain" in cfg.stages:
        with _naming("pretrain"):
            for size in cfg.model_sizes:
                PretrainConfig.read_file(_size_config(size))
    if "prepare" in cfg.stages:
        with _naming("prepare"):
            find_corpus(cfg)
    if cfg.minutes is None:
        return
    best, _ = cpu_slowdown()
    least = minimum_minutes(cfg.stages, estimate_costs(best, NOMINAL_IMPORT_S * best, 0.0))
    if cfg.minutes < least:
        raise BudgetError(
            f"a time box of {cfg.minutes:g} min is too small for {', '.join(cfg.stages)} on this "
            f"machine: give it at least {least} (SESSION_MINUTES={least})"
        )
