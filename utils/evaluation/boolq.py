"""BoolQ zero-shot by the harness protocol: which of " yes" and " no" is likelier after a passage.

62.17 % of the 3,270 validation questions are answered yes, so always saying yes scores 62.17 %.
Models below about a billion parameters show no skill here; the result says so where it is so.

Reference: C. Clark et al., BoolQ (2019); task `boolq`, version 2, of the lm-evaluation-harness.
"""

from collections.abc import Sequence
from typing import Any

from utils.errors import DataError
from utils.evaluation.benchmark_files import Rows
from utils.evaluation.likelihood import Check, encode_pair, score_pairs
from utils.evaluation.statistics import skill, wilson
from utils.model.checkpoints import LoadedModel

ANSWERS = (" no", " yes")
"""Continuations in the order of the labels 0 and 1."""


def question_prompt(row: dict[str, Any]) -> str:
    """Return the text in front of the answer."""
    return f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"


def label_of(row: dict[str, Any]) -> int:
    """Return 1 for yes and 0 for no, from SuperGLUE's `label` or BoolQ's own `answer`.

    Raises:
        DataError: the row has neither.
    """
    label = row.get("label", row.get("answer"))
    if label not in (0, 1):  # True and False are equal to them
        raise DataError(f"BoolQ row without an answer (label {label!r}): use the validation split")
    return int(label)


def evaluate_boolq(
    loaded: LoadedModel, data: Rows, max_samples: int, check: Check | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return (result, one record a question) over the first `max_samples` questions."""
    rows = data.rows[:max_samples]
    labels = [label_of(row) for row in rows]
    pairs = [encode_pair(loaded, question_prompt(row), word) for row in rows for word in ANSWERS]
    scores = [score for score, _ in score_pairs(loaded, pairs, name="BoolQ", check=check)]
    records = [
        {
            "question": row["question"],
            "label": ANSWERS[label].strip(),
            "predicted": ANSWERS[int(yes > no)].strip(),
            "log_likelihood_no": no,
            "log_likelihood_yes": yes,
        }
        for row, label, no, yes in zip(rows, labels, scores[::2], scores[1::2], strict=True)
    ]
    return _result(records, [label_of(row) for row in data.rows]), records


def _result(records: list[dict[str, Any]], all_labels: Sequence[int]) -> dict[str, Any]:
    right = sum(record["predicted"] == record["label"] for record in records)
    yes = sum(record["predicted"] == "yes" for record in records)
    labels = sum(record["label"] == "yes" for record in records)
    accuracy = wilson(right, len(records))
    majority = max(labels, len(records) - labels) / len(records)
    share = sum(all_labels) / len(all_labels)
    return {
        "accuracy": accuracy.as_dict(),
        "majority_class": majority,
        "majority_class_of_the_whole_file": max(share, 1 - share),
        "answered_yes": yes / len(records),
        "skill": skill(accuracy, majority),
    }
