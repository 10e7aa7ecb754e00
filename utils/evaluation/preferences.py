"""Reference-free preference accuracy: how often the chosen answer is likelier than the rejected.

Sums of log-probabilities are compared as they are, not divided by length: shorter answers have an
advantage, and the number says which of two given answers a model finds likelier, not that it would
write good ones.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from utils.chat.templates import Template
from utils.errors import DataError
from utils.evaluation.heldout import prompt_messages
from utils.evaluation.likelihood import Check, Pair, score_pairs
from utils.evaluation.statistics import Estimate, wilson
from utils.model.checkpoints import LoadedModel


def preference_accuracy(
    loaded: LoadedModel,
    rows: Sequence[Mapping[str, Any]],
    template: Template | None = None,
    *,
    check: Check | None = None,
) -> Estimate:
    """Return the share of rows where log p(chosen) > log p(rejected), stop tokens included.

    `rows` are {"prompt", "chosen", "rejected"}; rows that do not fit into the context are left out,
    so `count` may be below len(rows).

    Raises:
        DataError: no row fits, or one has no prompt, chosen and rejected.
    """
    layout = template or loaded.template
    pairs: list[Pair] = []
    for number, row in enumerate(rows, 1):
        if missing := [key for key in ("prompt", "chosen", "rejected") if not row.get(key)]:
            raise DataError(f"preference row {number} has no {missing[0]}: correct or remove it")
        prompt = layout.encode_prompt(prompt_messages(row["prompt"]), loaded.encoder)
        answers = [layout.encode_answer(row[key], loaded.encoder) for key in ("chosen", "rejected")]
        if len(prompt) + max(map(len, answers)) - 1 <= loaded.context_length:
            pairs += [(prompt, answer) for answer in answers]
    if not pairs:
        raise DataError(
            f"none of {len(rows)} preference pairs fits into {loaded.context_length} tokens: "
            "give shorter ones"
        )
    scores = [score for score, _ in score_pairs(loaded, pairs, name="preferences", check=check)]
    wins = sum(a > b for a, b in zip(scores[::2], scores[1::2], strict=True))
    return wilson(wins, len(pairs) // 2)
