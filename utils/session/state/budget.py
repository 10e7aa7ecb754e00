"""Divides the time of a box among its stages: pure functions over seconds.

Fixed costs come first (start-up of each stage, data preparation, evaluation, report, a margin);
what is left goes to the training stages by their shares, no stage getting more than it can use.
Called again after each stage with what was really used. Knows no clock and starts nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from utils.errors import BudgetError

TRAINING_STAGES = ("pretrain", "sft", "dpo")
MARGIN_S, MARGIN_SHARE, MARGIN_CAP_S = 15.0, 0.03, 120.0
"""Kept free at the end: 15 s and 3 % of the box, 120 s at most (12 min: 37 s; 30 min: 69 s)."""
LAST_S = 5.0
"""Kept to the very end, for writing the report."""
MIN_TRAINING_S = {"pretrain": 40.0, "sft": 15.0, "dpo": 10.0}
"""Below this much pure training (reference machine) a stage would teach nothing."""
FIXED_S = {
    "prepare": 15.0, "samples": 10.0, "preflight": 20.0, "check": 5.0, "pretrain": 40.0,
    "sft": 30.0, "dpo": 20.0, "evaluate": 20.0, "serve": 15.0, "architecture": 20.0, "report": 10.0,
}  # fmt: skip
"""Seconds of a stage beside importing and training, on the reference machine (2 cores): preflight,
compilation, held-out measurements, saving; for the others the least they need."""
IMPORTING = frozenset(FIXED_S) - {"samples", "check"}
"""Stages that import torch and transformers."""
CORPUS_S_PER_MB = {"prepare": 0.8, "samples": 0.0}
"""Seconds per MB of raw text on the reference machine (cleaning, deduplication, tokenizer)."""
TIGHT = 0.6
"""Estimates are rough and on the safe side: a small box may squeeze the fixed costs this far."""
EVALUATE_SHARE, EVALUATE_CAP_S = 0.05, 900.0
"""Part of the box for evaluation beyond what it needs at least, where training stages share it."""


@dataclass(frozen=True)
class Costs:
    """What stages cost on this machine, in seconds."""

    fixed: Mapping[str, float]
    """Seconds of each stage before and after training; all of it for the others."""
    least: Mapping[str, float]
    """Seconds of pure training below which a training stage makes no sense."""
    tight: float = TIGHT
    """How far a small box may squeeze the fixed costs before it is refused."""


def estimate_costs(slowdown: float, import_s: float, corpus_mb: float) -> Costs:
    """Return the costs on a machine `slowdown` times slower than the reference machine.

    `import_s` are the measured seconds to import torch and transformers; `corpus_mb` is the raw
    text that has to be prepared (0 when it is already).
    """
    fixed = {}
    for stage, seconds in FIXED_S.items():
        work = seconds + CORPUS_S_PER_MB.get(stage, 0.0) * corpus_mb
        fixed[stage] = work * slowdown + (import_s if stage in IMPORTING else 0.0)
    return Costs(fixed, {stage: s * slowdown for stage, s in MIN_TRAINING_S.items()})


def margin_s(box_s: float) -> float:
    """Return the seconds kept free at the end of a box."""
    return min(MARGIN_S + MARGIN_SHARE * box_s, MARGIN_CAP_S)


def minimum_minutes(stages: Sequence[str], costs: Costs) -> int:
    """Return the smallest box, in whole minutes, that `stages` and the report fit into."""
    needed_s = costs.tight * sum(costs.fixed[stage] for stage in [*stages, "report"])
    needed_s += sum(costs.least.get(stage, 0.0) for stage in stages)
    box_s = (needed_s + MARGIN_S) / (1 - MARGIN_SHARE)
    return math.ceil(min(box_s, needed_s + MARGIN_CAP_S) / 60)


def plan_seconds(
    left_s: float,
    box_s: float,
    stages: Sequence[str],
    costs: Costs,
    shares: Mapping[str, float],
    useful_s: Mapping[str, float],
) -> dict[str, float]:
    """Return the seconds of each remaining stage, and of the report, so that all end in the box.

    `useful_s` are the seconds of training that a stage can use at most (its data are finite); what
    it leaves goes to the others. Without training stages the last stage gets what is left.

    Raises:
        BudgetError: the remaining stages do not fit; the message holds the minimum box.
    """
    training = [stage for stage in stages if stage in TRAINING_STAGES]
    least_s = sum(costs.least[stage] for stage in training)
    fixed_s = sum(costs.fixed[stage] for stage in [*stages, "report"])
    free_s = left_s - margin_s(box_s)
    squeeze = min(1.0, max(costs.tight, (free_s - least_s) / fixed_s))
    pool = free_s - squeeze * fixed_s
    if not training and pool < 0:  # nothing is left to trade: the margin is there to be spent
        share = min(1.0, max(0.0, left_s - LAST_S) / fixed_s)
        return {stage: share * costs.fixed[stage] for stage in [*stages, "report"]}
    if pool < least_s - 1e-6:
        needed = math.ceil((box_s + (least_s - pool) / (1 - MARGIN_SHARE)) / 60)
        raise BudgetError(
            f"a time box of {box_s / 60:.3g} min is too small for {', '.join(stages)} on this "
            f"machine: give it at least {needed} (SESSION_MINUTES={needed})"
        )
    planned = {stage: squeeze * costs.fixed[stage] for stage in [*stages, "report"]}
    if not training:
        planned[stages[-1] if stages else "report"] += pool
        return planned
    if "evaluate" in stages:
        extra = min(EVALUATE_SHARE * box_s, EVALUATE_CAP_S, 0.2 * pool)
        planned["evaluate"] += extra
        pool -= extra
    for stage, seconds in _divide(pool, training, costs, shares, useful_s).items():
        planned[stage] += seconds
    return planned


def _divide(
    pool: float,
    training: Sequence[str],
    costs: Costs,
    shares: Mapping[str, float],
    useful_s: Mapping[str, float],
) -> dict[str, float]:
    """Return `pool` seconds divided by `shares`; a stage gets no more than it can use."""
    seconds: dict[str, float] = {}
    open_stages = list(training)
    while open_stages:
        total = sum(shares[stage] for stage in open_stages)
        left = pool - sum(seconds.values())
        offers = {stage: left * shares[stage] / total for stage in open_stages}
        full = [s for s in open_stages if offers[s] >= useful_s.get(s, math.inf)]
        if not full:
            return seconds | offers
        for stage in full:
            seconds[stage] = max(useful_s[stage], costs.least[stage])
            open_stages.remove(stage)
    return seconds
