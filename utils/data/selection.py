"""Which of the cleaned documents stay, and in which split each lands. Pure functions of arrays.

Knows nothing about files.
"""

import numpy as np


def balance_mixture(
    alive: np.ndarray,
    origins: np.ndarray,
    characters: np.ndarray,
    ranks: np.ndarray,
    weights: list[float],
) -> np.ndarray:
    """Return which documents stay so that the sources have the wanted shares of the characters.

    Nothing is repeated: the source that is scarcest for its weight keeps everything, the others
    keep the documents with the lowest `ranks` (hashes of their text, so a fair sample). Per
    document: `alive` bool, `origins` number of its source, `characters`, `ranks`.
    """
    held = np.array(
        [characters[alive & (origins == source)].sum() for source in range(len(weights))], float
    )
    shares = np.array(weights) / sum(weights)
    present = held > 0
    if present.sum() < 2:
        return alive
    total = (held[present] / shares[present]).min()
    stays = np.zeros_like(alive)
    for source in range(len(weights)):
        numbers = np.flatnonzero(alive & (origins == source))
        numbers = numbers[np.argsort(ranks[numbers], kind="stable")]
        ends = np.cumsum(characters[numbers])
        # Half of a document over or under is closest to the wanted share; at least one stays.
        fits = ends - characters[numbers] / 2 <= total * shares[source] * (1 + 1e-12)
        fits[:1] = True
        stays[numbers[fits]] = True
    return stays


def validation_mask(ranks: np.ndarray, train_ratio: float) -> np.ndarray:
    """Return which documents are for validation: those whose hash lies above `train_ratio`.

    A document's place depends on its own text only, so more data moves nothing from one split to
    the other. Of a corpus too small for that, the document with the highest (lowest) hash is moved
    so that neither split is empty; this needs two documents.

    `ranks`: 64-bit hashes of the kept documents, shape [documents].
    """
    mask = ranks.astype(np.float64) / 2.0**64 >= train_ratio
    if len(mask) < 2:
        return mask
    if not mask.any():
        mask[np.argmax(ranks)] = True
    elif mask.all():
        mask[np.argmin(ranks)] = False
    return mask


def sample_mask(ranks: np.ndarray, characters: np.ndarray, budget: int) -> np.ndarray:
    """Return a fair sample of about `budget` characters (all documents where these are fewer)."""
    total = int(characters.sum())
    if total <= budget:
        return np.ones(len(ranks), bool)
    mask = ranks.astype(np.float64) / 2.0**64 < budget / total
    if len(mask) and not mask.any():
        mask[np.argmin(ranks)] = True
    return mask
