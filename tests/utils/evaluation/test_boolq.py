import pytest

from utils.errors import DataError
from utils.evaluation.benchmark_files import Rows
from utils.evaluation.boolq import evaluate_boolq, label_of, question_prompt
from utils.evaluation.likelihood import encode_pair, score_pairs
from utils.model.checkpoints import load_model

ROWS = [
    {"passage": "Cats are animals.", "question": f"is a cat an animal {number}", "label": label}
    for number, label in enumerate([1, 1, 1, 0])
]


def test_the_prompt_is_the_one_of_the_harness():
    assert question_prompt({"passage": "It is wet.", "question": "is it wet"}) == (
        "It is wet.\nQuestion: is it wet?\nAnswer:"
    )


def test_labels_come_from_superglue_or_from_boolq_itself():
    assert [label_of(row) for row in ({"label": 1}, {"label": 0}, {"answer": True})] == [1, 0, 1]
    with pytest.raises(DataError, match="without an answer"):
        label_of({"label": -1})


def test_the_likelier_answer_counts_and_the_majority_stands_beside_it(checkpoint_dir):
    loaded = load_model(checkpoint_dir, device="cpu")
    result, records = evaluate_boolq(loaded, Rows(ROWS * 10, "val.jsonl"), 4)
    pair = encode_pair(
        loaded, "Cats are animals.\nQuestion: is a cat an animal 0?\nAnswer:", " yes"
    )
    assert records[0]["log_likelihood_yes"] == pytest.approx(score_pairs(loaded, [pair])[0][0])
    for record in records:
        says_yes = record["log_likelihood_yes"] > record["log_likelihood_no"]
        assert record["predicted"] == ("yes" if says_yes else "no")
    assert result["accuracy"]["count"] == 4
    assert result["majority_class"] == 0.75
    assert result["skill"].startswith("no skill shown")


def test_the_majority_class_of_the_validation_set_is_62_17_per_cent(shared_data):
    from utils.evaluation.benchmark_files import BOOLQ, benchmark_rows

    labels = [label_of(row) for row in benchmark_rows(BOOLQ, shared_data / "eval").rows]
    assert (sum(labels), len(labels)) == (2033, 3270)
