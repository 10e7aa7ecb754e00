"""Judges measured results against expectations that carry their source.

A verdict compares the 95 % interval of a measure, not its value: what the samples cannot tell apart
counts as expected.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.errors import DataError
from utils.evaluation.report import number
from utils.files import read_json
from utils.words import percent

FORMAT = 1
SHARES = ("accuracy", "stop_rate")
LOWER_IS_BETTER = ("perplexity", "bits_per_byte", "loss")


@dataclass(frozen=True)
class Verdict:
    """One line of the table."""

    measure: str
    measured: str
    expected: str
    verdict: str
    source: str


def read_result(path: Path) -> dict[str, Any]:
    """Return an evaluation_results.json.

    Raises:
        DataError: it is missing, is no result, or has another format.
    """
    result = read_json(path)
    groups = (
        [result.get(key) for key in ("model", "results")] if isinstance(result, dict) else [None]
    )
    if not all(isinstance(group, dict) for group in groups):
        raise DataError(f"{path} is no evaluation result: pass an evaluation_results.json")
    if result.get("format") != FORMAT:
        raise DataError(f"{path} has format {result.get('format')}: evaluate the model again")
    return result


def judge(result: Mapping[str, Any], expectations: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """Return a verdict for each measure that an expectation speaks about, in their order."""
    parameters = result["model"]["parameters"]
    verdicts: list[Verdict] = []
    for measure in dict.fromkeys(entry["measure"] for entry in expectations):
        about = [entry for entry in expectations if entry["measure"] == measure]
        fitting = [entry for entry in about if _fits(entry, parameters)]
        verdicts += _verdicts(result, measure, fitting)
    return verdicts


def _fits(entry: Mapping[str, Any], parameters: int) -> bool:
    low, high = entry.get("parameters", (0, float("inf")))
    return low <= parameters < high


def _verdicts(
    result: Mapping[str, Any], measure: str, entries: Sequence[Mapping[str, Any]]
) -> list[Verdict]:
    part, key = measure.split(".")
    found = result["results"].get(part, {"status": "not run", "reason": "not in this result"})
    name = f"{found.get('title', part)}: {key.replace('_', ' ')}"
    if found["status"] != "ok":
        return [Verdict(name, found["status"], "", found["status"], found["reason"])]
    estimate = found["measures"][key]
    show = percent if key in SHARES else number
    measured = show(estimate["value"]) if estimate["value"] is not None else "too large"
    if not entries:
        size = f"{result['model']['parameters'] / 1e6:.1f} million parameters"
        return [Verdict(name, measured, "", "no published range", f"none known for {size}")]
    verdicts = []
    for entry in entries:
        expected, verdict = _KINDS[entry["kind"]](result, entry, estimate, show)
        if not found["measures"].get("is_whole_test_set", True):
            verdict += " (on a part of the test set: not comparable)"
        verdicts.append(Verdict(name, measured, expected, verdict, entry["source"]))
    return verdicts


def _limit(result: Mapping[str, Any], limit: float | str) -> float:
    """Return a number, or the measure of the same result that a text names."""
    if isinstance(limit, str):
        part, key = limit.split(".")
        return float(result["results"][part]["measures"][key])
    return float(limit)


def _bounds(estimate: Mapping[str, Any]) -> tuple[float, float]:
    low, high = estimate["low"], estimate["high"]
    return (float("inf") if low is None else low, float("inf") if high is None else high)


def _range(result: Any, entry: Any, estimate: Any, show: Any) -> tuple[str, str]:
    low, high = _bounds(estimate)
    expected = f"{show(entry['low'])} to {show(entry['high'])}"
    if high < entry["low"]:
        verdict = "below"
    elif low > entry["high"]:
        verdict = "above"
    else:
        return expected, "as expected"
    lower_is_better = any(word in entry["measure"] for word in LOWER_IS_BETTER)
    if (verdict == "above") != lower_is_better:
        return expected, f"{verdict}: better than published, look for test text in the corpus"
    billions = entry["trained_tokens"] / 1e9
    return expected, f"{verdict}: the published models saw up to {billions:.0f} billion tokens"


def _baseline(result: Any, entry: Any, estimate: Any, show: Any) -> tuple[str, str]:
    baseline = _limit(result, entry["baseline"])
    what = entry["baseline"].split(".")[1].replace("_", " ").replace("class", "class is")
    low, _ = _bounds(estimate)
    name = f"{what} {percent(baseline, 2)}"
    if low > baseline:
        return f"above {show(baseline)}", f"skill: better than {name}"
    return f"above {show(baseline)}", f"no skill ({name})"


def _at_most(result: Any, entry: Any, estimate: Any, show: Any) -> tuple[str, str]:
    limit = _limit(result, entry["limit"])
    low, high = _bounds(estimate)
    verdict = "as expected" if high < limit else "too close to tell"
    worse = f"above: no better than {entry['name']}"
    return f"below {show(limit)}", worse if low >= limit else verdict


def _at_least(result: Any, entry: Any, estimate: Any, show: Any) -> tuple[str, str]:
    limit = _limit(result, entry["limit"])
    _, high = _bounds(estimate)
    reached = estimate["value"] >= limit
    below = "below" if high < limit else "below, though the samples are too few to be sure"
    return f"at least {show(limit)}", "as expected" if reached else below


_KINDS = {"range": _range, "baseline": _baseline, "at_most": _at_most, "at_least": _at_least}
