"""Pure functions from logits to the next token: greedy, temperature, top-k, top-p.

Filters are applied in the order of Hugging Face (temperature, top-k, top-p), so that the
distribution is the same. Shapes: B rows, V vocabulary, C candidates.
Knows nothing about models, text or stopping.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

NUCLEUS_CANDIDATES = 256
"""Top-p looks at this many likeliest tokens before it sorts all V of them (25 x slower)."""


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn, and when it ends at the latest."""

    temperature: float = 0.0
    """0 picks the likeliest token."""
    top_p: float = 1.0
    """Sample among the likeliest tokens that hold this much probability."""
    top_k: int = 0
    """Sample among this many likeliest tokens (0: no limit)."""
    max_new_tokens: int = 128
    """Longest answer in tokens."""
    seed: int | None = None
    """Each request starts its own random stream from it; None takes a fresh one."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer; they are not part of it."""


def new_generator(seed: int | None) -> torch.Generator:
    """Return the random stream of one request (on the CPU, so that devices agree)."""
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed % 2**63)
    return generator


def next_tokens(logits: Tensor, settings: Sampling, generators: list[torch.Generator]) -> list[int]:
    """Return one token id per row of `logits` [B, V]; row b draws from `generators[b]`."""
    if settings.temperature == 0:
        return logits.argmax(dim=-1).tolist()
    drawn = []
    for row, generator in zip(logits, generators, strict=True):
        probabilities, ids = candidates(row, settings)
        drawn.append(int(ids[draw(probabilities, generator)]))
    return drawn


def candidates(logits: Tensor, settings: Sampling) -> tuple[Tensor, Tensor]:
    """Return (probabilities [C], token ids [C]) of the tokens that the settings leave.

    `logits` is one row [V], the temperature is above 0; the probabilities sum to 1.
    """
    scaled = logits.float() / settings.temperature
    if settings.top_k:
        values, ids = scaled.topk(min(settings.top_k, len(scaled)))
        return keep_nucleus(values.softmax(-1), ids, settings.top_p)
    if settings.top_p >= 1:
        return scaled.softmax(-1), torch.arange(len(scaled), device=scaled.device)
    values, ids = scaled.topk(min(NUCLEUS_CANDIDATES, len(scaled)))
    probabilities = (values - scaled.logsumexp(-1)).exp()
    if float(probabilities.sum()) < settings.top_p:
        probabilities, ids = scaled.softmax(-1).sort(descending=True)
    return keep_nucleus(probabilities, ids, settings.top_p)


def keep_nucleus(probabilities: Tensor, ids: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Return the fewest first candidates [C] that hold `top_p`, renormalised; at least one.

    `probabilities` [C] fall; they are absolute, so their sum may be below 1.

    Reference: Holtzman et al., 2020, "The Curious Case of Neural Text Degeneration".
    """
    before = probabilities.cumsum(-1) - probabilities
    count = max(1, int((before < top_p).sum()))
    kept = probabilities[:count]
    return kept / kept.sum(), ids[:count]


def draw(probabilities: Tensor, generator: torch.Generator) -> int:
    """Return an index drawn from `probabilities` [C] with one uniform number."""
    cumulative = probabilities.double().cumsum(-1).cpu()
    point = torch.rand((), generator=generator, dtype=torch.float64) * cumulative[-1]
    index = int(torch.searchsorted(cumulative, point, right=True))
    return min(index, len(cumulative) - 1)
