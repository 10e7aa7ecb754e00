import pytest

from utils.chat.templates import TEMPLATES
from utils.errors import DataError
from utils.evaluation.likelihood import score_pairs
from utils.evaluation.preferences import preference_accuracy
from utils.model.checkpoints import load_model


@pytest.fixture(scope="module")
def loaded(checkpoint_dir):
    return load_model(checkpoint_dir, device="cpu")


def test_short_answers_win_where_all_tokens_are_about_as_likely(loaded):
    short, long = "Yes.", "It returns the number of items of a container."
    rows = [{"prompt": "Why?", "chosen": short, "rejected": long}] * 3
    rows.append({"prompt": "Why?", "chosen": long, "rejected": short})
    accuracy = preference_accuracy(loaded, rows)
    assert (accuracy.value, accuracy.count) == (0.75, 4)


def test_the_answer_with_its_stop_token_is_compared(loaded):
    template = TEMPLATES["chatml"]
    prompt = template.encode_prompt([{"role": "user", "content": "Why?"}], loaded.encoder)
    answers = [template.encode_answer(text, loaded.encoder) for text in ("a key", "a list")]
    assert all(answer[-1] == template.stop_id(loaded.encoder) for answer in answers)
    (first, _), (second, _) = score_pairs(loaded, [(prompt, answer) for answer in answers])
    row = {"prompt": "Why?", "chosen": "a key", "rejected": "a list"}
    assert preference_accuracy(loaded, [row]).value == float(first > second)


def test_equal_answers_are_no_win(loaded):
    row = {"prompt": [{"role": "user", "content": "Hi"}], "chosen": "a", "rejected": "a"}
    assert preference_accuracy(loaded, [row]).value == 0.0


def test_rows_that_do_not_fit_are_left_out(loaded):
    long = {"prompt": "Why?", "chosen": "because " * 200, "rejected": "no"}
    fits = {"prompt": "Why?", "chosen": "yes", "rejected": "no way at all"}
    assert preference_accuracy(loaded, [long, fits]).count == 1
    with pytest.raises(DataError, match="none of 1 preference pairs fits into 128 tokens"):
        preference_accuracy(loaded, [long])


def test_a_row_without_its_parts_is_named(loaded):
    rows = [{"prompt": "Why?", "chosen": "a", "rejected": "b"}, {"prompt": "Why?", "chosen": "a"}]
    with pytest.raises(DataError, match="preference row 2 has no rejected"):
        preference_accuracy(loaded, rows)
