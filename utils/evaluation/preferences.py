"""Reference-free preference accuracy: how often the chosen answer is likelier than the rejected.

Sums of log-probabilities are compared as they are, not divided by length: shorter answers have an
advantage, and the number says which of two given answers a model finds likelier, not that it would
write good ones.
"""

from collections.abc import Sequence

from utils.chat.rows import DPORows
from utils.errors import DataError
from utils.evaluation.likelihood import Check, score_pairs
from utils.evaluation.statistics import Estimate, wilson
from utils.model.checkpoints import LoadedModel

Likelihoods = list[tuple[float, float]]
"""(log p(chosen), log p(rejected)) of each pair in nats, stop tokens included."""


def answer_likelihoods(
    loaded: LoadedModel, rows: DPORows, *, check: Check | None = None
) -> Likelihoods:
    """Return the log-probabilities of both answers of each pair.

    Raises:
        DataError: there is no pair.
    """
    if not len(rows):
        raise DataError(
            f"none of {rows.dropped.total()} preference pairs can be measured "
            f"({rows.reasons}; the context has {loaded.context_length} tokens): give others"
        )
    columns = zip(rows.prompt_ids, rows.chosen_ids, rows.rejected_ids, strict=True)
    pairs = [(prompt, answer) for prompt, *answers in columns for answer in answers]
    scores = [score for score, _ in score_pairs(loaded, pairs, name="preferences", check=check)]
    return list(zip(scores[::2], scores[1::2], strict=True))


def preference_accuracy(pairs: Sequence[tuple[float, float]]) -> Estimate:
    """Return the share of pairs whose first value is the greater one."""
    return wilson(sum(first > second for first, second in pairs), len(pairs))
