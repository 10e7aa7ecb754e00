"""Renders report.html of a pre-training run: one self-contained page, from the files of its folder.

Reads metrics.jsonl, plan.json and run.json; what is missing leaves its part out. The template
(`page.html.j2`) escapes every text, so a model's words can never become markup.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from utils.charts import STYLE_DIR, Mark, Series, line_chart
from utils.files import write_atomic
from utils.run_folder import RunFolder, read_metrics
from utils.words import cell, count, duration, number, percent

PAGE_FILE = "report.html"
TEMPLATE = "page.html.j2"
SAMPLED_STEPS = 6
"""Steps whose samples are shown, the last ones of the run."""
NOT_MARKED = frozenset({"sample", "plan"})
"""Events that get no line in the charts: samples have a part of their own, the plan is first."""

SUMMARY = {
    "parameters": "Parameters",
    "steps": "Steps",
    "tokens": "Tokens",
    "val_bpb": "Bits per byte of held-out text at the end",
    "best_bpb": "The lowest",
    "best_step": "Step of the lowest, kept as best/",
    "seconds": "Seconds, earlier processes included",
    "tokens_per_s": "Tokens per second (median)",
    "mfu": "MFU (share of the device's peak)",
    "peak_memory_mb": "Memory at most, MB",
    "energy_wh": "Energy, Wh (of the whole machine part that counts it)",
    "energy_source": "Energy counted by",
    "cost": "Cost (hours x --cost_per_hour)",
}
"""Keys of the summary in run.json, with the names they have on the page."""

Records = Sequence[dict[str, Any]]


def write_page(folder: Path) -> Path:
    """Write report.html of the run in `folder` and return its path.

    Raises:
        DataError: the folder holds no run.json.
        LumiError: the disk is full or not writable.
    """
    run = RunFolder.read(folder).record
    records = [line for line in read_metrics(folder) if "step" in line]
    environment = Environment(
        loader=FileSystemLoader([Path(__file__).parent, STYLE_DIR]),
        autoescape=True,
        undefined=StrictUndefined,
    )
    page = environment.get_template(TEMPLATE).render(
        run=run,
        name=run["settings"].get("model_name", folder.name),
        tiles=tiles(run["summary"]),
        charts=charts(records),
        rows=summary_rows(run["summary"]),
        events=events(records),
        samples=samples(records),
        settings=sorted((key, str(value)) for key, value in run["settings"].items()),
        environment=sorted((key, str(value)) for key, value in run["environment"].items()),
    )
    write_atomic(folder / PAGE_FILE, page)
    return folder / PAGE_FILE


def tiles(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (value, label) of the numbers on top of the page."""
    mfu = summary.get("mfu")
    found = (
        ("parameters", "parameters", count),
        ("tokens", "tokens", count),
        ("val_bpb", "bits per byte, held out", lambda bpb: number(bpb, 4)),
        ("tokens_per_s", "tokens/s" + (f", MFU {percent(mfu, 0)}" if mfu else ""), cell),
        ("seconds", "in all", duration),
    )
    return [(show(summary[key]), label) for key, label, show in found if summary.get(key)]


def summary_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the numbers of the run as (name, value), those that are not known yet left out."""
    return [(name, cell(summary[key], 5)) for key, name in SUMMARY.items() if key in summary]


def events(records: Records) -> list[dict[str, Any]]:
    """Return what happened, in order, as {step, name, facts, texts}; long texts apart."""
    found = []
    for record in records:
        if record.get("event", "sample") == "sample":
            continue
        rest = {k: v for k, v in record.items() if k not in ("event", "step", "time_s")}
        texts = {k: v for k, v in rest.items() if isinstance(v, str) and len(v) > 80}
        facts = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in rest.items() if k not in texts)
        name = record["event"].replace("_", " ")
        found.append({"step": record["step"], "name": name, "facts": facts, "texts": texts})
    return found


def samples(records: Records) -> list[dict[str, Any]]:
    """Return [{step, said: [{prompt, text}]}] of the last sampled steps."""
    found: dict[int, list[dict[str, str]]] = {}
    for record in records:
        if record.get("event") == "sample":
            said = {"prompt": record["prompt"], "text": record["text"]}
            found.setdefault(record["step"], []).append(said)
    return [{"step": step, "said": said} for step, said in sorted(found.items())][-SAMPLED_STEPS:]


def charts(records: Records, counting: Mapping[str, float] | None = None) -> list[dict[str, str]]:
    """Return {svg, caption} of each chart that has something to show; the x axis is tokens.

    `counting` are bits per byte that baselines reach, drawn as dashed lines beside the model's.
    """
    per_step = next((r["tokens"] / r["step"] for r in reversed(records) if r.get("tokens")), 1.0)
    marks = [
        Mark(record["step"] * per_step, record["event"].replace("_", " "))
        for record in records
        if record.get("event", "sample") not in NOT_MARKED
    ]
    drawn = (
        ("Training loss", "nats per token", {"loss": "training loss"}),
        (
            "Bits per byte",
            "bits per byte",
            {"val_bpb": "held out", "train_bpb": "training (by its average bytes per token)"},
        ),
        (
            "Learning rate",
            "learning rate",
            {"learning_rate": "AdamW", "muon_learning_rate": "(Nor)Muon"},
        ),
        ("Speed", "tokens per second", {"tokens_per_s": "tokens per second"}),
        ("Gradient norm", "norm before clipping", {"grad_norm": "gradient norm"}),
    )
    found = []
    for title, unit, keys in drawn:
        lines = [Series(name, column(records, key, per_step)) for key, name in keys.items()]
        lines = [line for line in lines if line.points]
        caption = title
        if "val_bpb" in keys and lines and counting:
            caption = f"{title}; dashed: what counting alone reaches"
            first, last = lines[0].points[0][0], lines[0].points[-1][0]
            lines += [
                Series(name, [(first, bpb), (last, bpb)], is_reference=True)
                for name, bpb in counting.items()
            ]
        if svg := line_chart(title, "tokens", unit, lines, marks):
            found.append({"svg": svg, "caption": caption})
    return found


def column(records: Records, key: str, per_step: float = 1.0) -> list[tuple[float, float]]:
    """Return (tokens, or else steps; value) of the records that hold `key`."""
    return [
        (record["step"] * per_step, float(record[key]))
        for record in records
        if isinstance(record.get(key), int | float) and "step" in record
    ]
