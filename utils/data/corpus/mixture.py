"""Works out how many characters of each source a mixture takes.

A weight is a wanted share; caps are upper limits. Nothing is repeated, so the source that is
scarcest for its share limits all others; what a cap keeps from a source goes to the others, and a
source with enough text for its `max_characters` limits nobody. Knows nothing about documents.
"""

from collections.abc import Sequence

import numpy as np

from utils.config.prepare import MixtureSource
from utils.errors import DataError
from utils.words import count

TOLERANCE = 1e-9
TOLD_SHARE = 0.01
"""Lost share of a source from which its loss is told."""


def allotments(held: np.ndarray, sources: Sequence[MixtureSource]) -> np.ndarray:
    """Return the characters that each source gives, of the `held` ones.

    Raises:
        DataError: the caps of the sources that hold something leave no mixture.
    """
    taken = np.zeros(len(held))
    present = np.flatnonzero(held > 0)
    if not len(present):
        return taken
    chosen = [sources[one] for one in present.tolist()]
    caps = np.array([source.max_share for source in chosen])
    if caps.sum() < 1 - TOLERANCE:
        names = ", ".join(f"{source.name} {source.max_share:g}" for source in chosen)
        raise DataError(
            f"mix_datasets: the max_share of the sources that hold text ({names}) make less than "
            "the whole: raise one"
        )
    limits = np.array([source.max_characters or np.inf for source in chosen])
    wanted = wanted_shares(chosen)
    totals = held[present] / wanted
    limiting = limits >= held[present]
    # Where every source is cut off by its own max_characters, nothing else limits the whole.
    total = totals[limiting].min() if limiting.any() else (limits / wanted).max()
    taken[present] = _within_shares(np.minimum(total * wanted, limits), caps)
    return taken


def _capped(held: float, source: MixtureSource) -> float:
    return min(held, source.max_characters or np.inf)


def wanted_shares(sources: Sequence[MixtureSource]) -> np.ndarray:
    """Return the shares by weight; what `max_share` takes from a source goes to the others."""
    weights = np.array([source.weight for source in sources])
    caps = np.array([source.max_share for source in sources])
    shares = weights / weights.sum()
    capped = np.zeros(len(sources), bool)
    while (over := ~capped & (shares > caps + TOLERANCE)).any():
        capped |= over
        left = 1 - caps[capped].sum()
        shares = np.where(capped, caps, left * weights / weights[~capped].sum())
    return shares


def _within_shares(taken: np.ndarray, caps: np.ndarray) -> np.ndarray:
    """Return the largest amounts up to `taken` of which none is over its share of their sum."""
    over = np.zeros(len(taken), bool)
    while True:
        total = taken[~over].sum() / (1 - caps[over].sum()) if over.any() else taken.sum()
        more = ~over & (taken > caps * total * (1 + TOLERANCE))
        if not more.any():
            return np.where(over, caps * total, taken)
        over |= more


def loss_message(
    held: np.ndarray, taken: np.ndarray, sources: Sequence[MixtureSource]
) -> str | None:
    """Return a line that tells what the scarcest source costs the others, if it costs much."""
    lost = {
        number: 1 - taken[number] / held[number]
        for number in np.flatnonzero(held > 0).tolist()
        if taken[number] < _capped(held[number], sources[number]) * (1 - TOLD_SHARE)
    }
    whole = [number for number in np.flatnonzero(held > 0).tolist() if number not in lost]
    if not lost or not whole:
        return None
    thrown = ", ".join(
        f"{share:.0%} of {sources[number].name} ({count((held - taken)[number])} characters)"
        for number, share in lost.items()
    )
    scale = sources[whole[0]].weight / held[whole[0]]
    weights = ", ".join(
        f"{sources[number].name} {held[number] * scale:.3g}"
        for number in np.flatnonzero(held > 0).tolist()
    )
    names = ", ".join(sources[number].name for number in whole)
    return (
        f"{names} scarce for the weight: left out because of it {thrown}; weights {weights} would "
        "keep everything"
    )
