"""Intervals of measured numbers: Wilson for shares of right answers, bootstrap for averages.

All intervals are 95 %. They say how much the number would move with other samples of the same
kind; they say nothing about other text, other prompts or another protocol.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Z_95 = 1.959963984540054
"""Standard normal quantile of a two-sided 95 % interval."""
RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A measured value with its 95 % interval and the number of samples behind it."""

    value: float
    low: float
    high: float
    count: int

    def as_dict(self) -> dict[str, Any]:
        """Return {"value", "low", "high", "count"}; what is infinite becomes None (JSON)."""
        return {k: v if math.isfinite(v) else None for k, v in asdict(self).items()}


def wilson(successes: int, count: int) -> Estimate:
    """Return the share `successes / count` with its Wilson score interval.

    Reference: E. B. Wilson, Probable inference, the law of succession, and statistical inference
    (1927). Unlike the normal approximation it stays inside 0-1 and has a width at 0 and at `count`.
    """
    assert 0 <= successes <= count and count > 0, (successes, count)
    share, z2 = successes / count, Z_95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    spread = share * (1 - share) / count + z2 / (4 * count**2)
    half = Z_95 * math.sqrt(spread) / (1 + z2 / count)
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == count else centre + half
    return Estimate(share, low, high, count)


def bootstrap_ratio(
    numerators: Sequence[float], denominators: Sequence[float], seed: int = 42
) -> Estimate:
    """Return sum(numerators) / sum(denominators) with a percentile bootstrap interval.

    One pair per independent item (a document, an article, a passage); items are resampled whole,
    because the tokens inside one are not independent of each other.
    """
    top, bottom = np.asarray(numerators, float), np.asarray(denominators, float)
    count = len(top)
    assert count == len(bottom) > 0, (count, len(bottom))
    generator = np.random.default_rng(seed)
    ratios = np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        chosen = generator.integers(0, count, count)
        ratios[number] = top[chosen].sum() / bottom[chosen].sum()
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Estimate(float(top.sum() / bottom.sum()), float(low), float(high), count)


def exponential(estimate: Estimate, factor: float = 1.0) -> Estimate:
    """Return exp(factor x estimate): nats per word to word perplexity; infinite on overflow."""
    value, low, high = (_exp(factor * x) for x in (estimate.value, estimate.low, estimate.high))
    return Estimate(value, low, high, estimate.count)


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """Return the estimate in another unit (factor > 0)."""
    assert factor > 0, factor
    value, low, high = (factor * x for x in (estimate.value, estimate.low, estimate.high))
    return Estimate(value, low, high, estimate.count)


def _exp(power: float) -> float:
    return math.exp(power) if power < 709.0 else math.inf


def skill(estimate: Estimate, baseline: float) -> str:
    """Return in plain words whether an accuracy beats what needs no skill (`baseline`, 0-1)."""
    if estimate.low > baseline:
        return "better than the baseline"
    if estimate.high < baseline:
        return "no skill shown: below the baseline"
    return "no skill shown: the interval includes the baseline"
