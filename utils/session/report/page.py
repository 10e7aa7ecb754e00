"""Renders report.html of a session: one self-contained page that needs no network.

Reads what the session and its stages wrote down; a missing part leaves its section out. The
template (`report.html.j2`) escapes every text, so a model's words can never become markup.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from utils.charts import STYLE_DIR, Series, line_chart, pair_chart
from utils.checkout import CHECKPOINTS
from utils.files import read_json
from utils.run_folder import read_metrics
from utils.session.report.evaluation import evaluation_view, shares_chart
from utils.session.report.verdict import PRACTICE, last_stop_rate, next_command, verdict
from utils.session.state.folder import Session
from utils.session.state.stages import StageContext
from utils.training.records.page import charts, column
from utils.words import cell, count, number, percent

TEMPLATE = "report.html.j2"
HERE = Path(__file__).parent
SAMPLES_SHOWN = 6

Metrics = list[dict[str, Any]]


def render_report(
    session: Session, context: StageContext | None, answers: Mapping[str, list[dict[str, Any]]]
) -> str:
    """Return the page as HTML."""
    summary = session.summary
    folders = _run_folders(context, summary)
    metrics = {stage: read_metrics(folder) for stage, folder in folders.items()}
    evaluation = evaluation_view(summary["evaluation"], context)
    environment = Environment(
        loader=FileSystemLoader([HERE, STYLE_DIR]), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template(TEMPLATE).render(
        s=summary,
        tiles=_tiles(summary),
        verdict=verdict(summary),
        first_plan=_first_plan(session),
        model=_model(session),
        charts={
            "time": _time_chart(summary),
            "pretrain": charts(metrics.get("pretrain", []), _counting(summary["pretrain"])),
            "tuning": _tuning_charts(metrics),
            "evaluation": shares_chart(evaluation),
        },
        bpb_rows=_bpb_rows(summary["pretrain"]),
        samples=_samples(metrics.get("pretrain", [])),
        tuning_rows=_tuning_rows(summary),
        practice=PRACTICE if "samples" in session.cfg.stages else "",
        answers=_by_question(answers),
        evaluation=evaluation,
        architectures=_architectures(session.folder / "architectures.json"),
        data_card=_data_card(context),
        facts=_facts(summary),
        events=[_event_line(event) for event in session.plan["events"]],
        next=next_command(summary),
    )


def _run_folders(context: StageContext | None, summary: dict[str, Any]) -> dict[str, Path]:
    """Return the run folders of the training stages that this session finished or began."""
    if context is None:
        return {}
    work_dir = context.cfg.work_dir
    folders = {"pretrain": work_dir / context.pretrain_dir}
    folders |= {stage: work_dir / CHECKPOINTS / stage for stage in ("sft", "dpo")}
    begun = {entry["name"] for entry in summary["stages"] if entry["status"] != "waiting"}
    return {stage: folder for stage, folder in folders.items() if stage in begun}


def _tiles(summary: dict[str, Any]) -> list[dict[str, str]]:
    pretrain, sft, dpo = summary["pretrain"], summary["sft"], summary["dpo"]
    tiles = []
    if pretrain:
        tiles += [
            (count(pretrain["parameters"]), "parameters"),
            (count(pretrain["tokens"]), "tokens read in pre-training"),
            (number(pretrain["val_bpb"]), "bits per byte on held-out text"),
        ]
    if sft:
        tiles += [(percent(last_stop_rate(summary)), "of answers end by themselves")]
    if dpo:
        tiles += [(percent(dpo["heldout_accuracy_after"]), "held-out preferences right")]
    return [{"value": value, "label": label} for value, label in tiles]


def _first_plan(session: Session) -> dict[str, float]:
    """Return the planned minutes of each stage before the first one began."""
    for event in session.plan["events"]:
        if event["event"] == "plan":
            return {stage: seconds / 60 for stage, seconds in event["seconds"].items()}
    return {}


def _model(session: Session) -> dict[str, str] | None:
    model = session.plan["model"]
    if model is None:
        return None
    s = model["settings"]
    text = (
        f"{s['model_name']}: {s['n_layer']} layers of width {s['d_model']}, {s['n_head']} heads, "
        f"vocabulary of {s['vocab_size']:,}, {count(model['parameters'])} parameters, rows of "
        f"{s['sequence_length']} tokens"
    )
    return {"text": text, "reason": model["reason"][:1].upper() + model["reason"][1:]}


def _time_chart(summary: dict[str, Any]) -> str:
    rows = [(e["name"], e["planned"] or 0.0, e["used"]) for e in summary["stages"]]
    return pair_chart("Minutes planned and used by each stage", "Minutes", rows)


def _counting(numbers: dict[str, Any]) -> dict[str, float]:
    """Return the bits per byte that counting reaches on the same text, as far as it is known."""
    names = {"bigram_bpb": "bigram", "unigram_bpb": "unigram"}
    return {name: numbers[key] for key, name in names.items() if numbers.get(key) is not None}


def _tuning_charts(metrics: Mapping[str, Metrics]) -> list[dict[str, str]]:
    found = []
    for stage, name in (("sft", "SFT"), ("dpo", "DPO")):
        for key, label in (("loss", "loss"), ("learning_rate", "learning rate")):
            points = column(metrics.get(stage, []), key)
            title = f"{name}: {label}"
            found.append((line_chart(title, "step", label, [Series(label, points)]), title))
    accuracy = column(metrics.get("dpo", []), "accuracy")
    title = "DPO: share of training pairs ranked right"
    found.append((line_chart(title, "step", "share", [Series("accuracy", accuracy)]), title))
    return [{"svg": svg, "caption": caption} for svg, caption in found if svg]


def _bpb_rows(numbers: dict[str, Any]) -> list[dict[str, str]]:
    names = {"val_bpb": "This model", "bigram_bpb": "Bigram", "unigram_bpb": "Unigram"}
    return [
        {"name": name, "value": number(numbers[key])}
        for key, name in names.items()
        if numbers.get(key) is not None
    ]


def _samples(metrics: Metrics) -> list[dict[str, Any]]:
    """Return samples of some steps, spread evenly, the last one among them."""
    found = [m for m in metrics if m.get("event") == "sample"]
    stride = -(-len(found) // SAMPLES_SHOWN) or 1
    return found[::-1][::stride][::-1]


def _tuning_rows(summary: dict[str, Any]) -> list[dict[str, str]]:
    sft, dpo, rows = summary["sft"], summary["dpo"], []
    if sft:
        before, after = sft["heldout_loss_before"], sft["heldout_loss_after"]
        rows.append(("SFT: loss of the answers", number(before), number(after)))
        rows.append(("SFT: answers that end by themselves", "", percent(sft["stop_rate"])))
    if dpo:
        before, after = dpo["heldout_accuracy_before"], dpo["heldout_accuracy_after"]
        rows.append(("DPO: preferences right", percent(before), percent(after)))
        first = f"{number(dpo['first_loss'], 4)} (ln 2 = 0.6931 is right)"
        rows.append(("DPO: loss of the first step", first, ""))
    return [{"name": name, "before": before, "after": after} for name, before, after in rows]


def _by_question(answers: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return [{question, said: [{model, text, stopped}]}] from the answers of each model."""
    found: dict[str, list[dict[str, Any]]] = {}
    for model, items in answers.items():
        for item in items:
            said = {"model": model, "text": item["answer"].strip(), "stopped": item["stopped"]}
            found.setdefault(item["question"], []).append(said)
    return [{"question": question, "said": said} for question, said in found.items()]


def _architectures(path: Path) -> dict[str, Any] | None:
    """Return columns and rows of the figures that the architecture stage measured."""
    if not path.is_file():
        return None
    content = read_json(path)
    rows = content if isinstance(content, list) else next(iter(content.values()), [])
    if not rows or not isinstance(rows, list):
        return None
    columns = [key for key, value in rows[0].items() if not isinstance(value, (dict, list))]
    return {
        "columns": [column.replace("_", " ") for column in columns],
        "rows": [[cell(row.get(column)) for column in columns] for row in rows],
    }


def _data_card(context: StageContext | None) -> str:
    if context is None or context.corpus_dir is None:
        return ""
    path = context.cfg.work_dir / context.corpus_dir / "DATA_CARD.md"
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _facts(summary: dict[str, Any]) -> list[tuple[str, str]]:
    machine = {k: v for k, v in summary["machine"].items() if not isinstance(v, (list, dict))}
    return [(k.replace("_", " "), cell(v)) for k, v in {**machine, **summary["versions"]}.items()]


def _event_line(event: dict[str, Any]) -> str:
    rest = {k: v for k, v in event.items() if k not in ("event", "minutes_used", "command")}
    said = ", ".join(f"{key} {value}" for key, value in rest.items())
    return f"{event['minutes_used']:7.2f} min  {event['event']:<8} {said}"
