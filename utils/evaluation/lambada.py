"""LAMBADA by the harness protocol: the last word of a passage that only the whole passage gives.

Accuracy counts passages whose last word greedy decoding would write; perplexity is
exp(-mean log-likelihood of that word). There is no majority class to beat: guessing scores 0.

Reference: D. Paperno et al., The LAMBADA dataset (2016); task `lambada_openai`, version 1, of the
lm-evaluation-harness.
"""

from typing import Any

from utils.evaluation.benchmark_files import Rows
from utils.evaluation.likelihood import Check, encode_pair, score_pairs
from utils.evaluation.statistics import bootstrap_ratio, exponential, wilson
from utils.model.checkpoints import LoadedModel


def split_last_word(text: str) -> tuple[str, str]:
    """Return (passage without its last word, blank + last word); words end at single blanks."""
    context, _, word = text.rpartition(" ")
    return context, f" {word}"


def evaluate_lambada(
    loaded: LoadedModel,
    data: Rows,
    max_samples: int,
    seed: int = 42,
    check: Check | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return (result, one record a passage) over the first `max_samples` passages."""
    parts = [split_last_word(row["text"]) for row in data.rows[:max_samples]]
    pairs = [encode_pair(loaded, context, word) for context, word in parts]
    scores = score_pairs(loaded, pairs, name="LAMBADA", check=check)
    records = [
        {"passage": context, "word": word, "log_likelihood": score, "is_greedy": is_greedy}
        for (context, word), (score, is_greedy) in zip(parts, scores, strict=True)
    ]
    losses = bootstrap_ratio([-score for score, _ in scores], [1.0] * len(scores), seed)
    result = {
        "accuracy": wilson(sum(is_greedy for _, is_greedy in scores), len(scores)).as_dict(),
        "perplexity": exponential(losses).as_dict(),
    }
    return result, records
