"""Turns evaluation_results.json into rows and a chart for the session's report."""

from typing import Any

from utils.charts import Bar, interval_chart
from utils.checkout import RESULTS
from utils.files import read_lines
from utils.session.state.stages import StageContext
from utils.words import cell

NAMES = {
    "bits_per_byte": "bits per byte",
    "unigram_bits_per_byte": "bits per byte, unigram baseline",
    "bigram_bits_per_byte": "bits per byte, bigram baseline",
}
SHARES = frozenset({"accuracy", "stop_rate"})
"""Measures between 0 and 1 that the chart shows."""


def evaluation_view(results: dict[str, Any], context: StageContext | None) -> dict[str, Any]:
    """Return {"parts": [{title, rows, reason}], "smoke": [...], "shares": [...]}."""
    parts, shares = [], []
    for part in results.values():
        measures = part.get("measures", {})
        rows = [_row(name, value) for name, value in measures.items() if _is_number(value)]
        reason = part.get("reason", "") if part.get("status") != "ok" else ""
        parts.append({"title": part.get("title", ""), "rows": rows, "reason": reason})
        for name in SHARES & measures.keys():
            if isinstance(measures[name], dict) and "low" in measures[name]:
                shares.append((f"{part['title']}: {NAMES.get(name, name)}", measures[name]))
    return {"parts": parts, "shares": sorted(shares), "smoke": _smoke(context)}


def shares_chart(view: dict[str, Any]) -> str:
    """Return the SVG of all shares with their intervals, or an empty string."""
    bars = [
        Bar(name.replace("Held-out ", "").replace("_", " "), e["value"], e["low"], e["high"])
        for name, e in view["shares"]
    ]
    return interval_chart("Evaluation: shares with 95% intervals", bars, 0.0, 1.0)


def _is_number(value: Any) -> bool:
    if isinstance(value, dict):
        return isinstance(value.get("value"), (int, float))
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _row(name: str, value: Any) -> dict[str, str]:
    name = NAMES.get(name, name.replace("_", " "))
    if not isinstance(value, dict):
        return {"name": name, "value": cell(value), "interval": "", "count": ""}
    interval = ""
    if value.get("low") is not None:
        interval = f"{cell(value['low'])} to {cell(value['high'])}"
    count = value.get("count")
    shown = "" if count is None else f"{count:,}"
    return {"name": name, "value": cell(value["value"]), "interval": interval, "count": shown}


def _smoke(context: StageContext | None) -> list[dict[str, str]]:
    """Return the recorded smoke answers of the session's evaluation."""
    if context is None:
        return []
    folder = context.cfg.work_dir / RESULTS / context.folder.name
    found = []
    for record in read_lines(folder / "records" / "smoke.jsonl"):
        score = record.get("quality", {}).get("score")
        found.append(
            {
                "category": record["category"].replace("_", " "),
                "prompt": record["prompt"],
                "answer": record.get("response", record["status"]),
                "score": "" if score is None else f"{score:.2f}",
            }
        )
    return found
