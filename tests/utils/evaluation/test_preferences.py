import pytest

from utils.chat.layouts import preference
from utils.chat.rows import build_dpo_rows
from utils.chat.templates import TEMPLATES
from utils.errors import DataError
from utils.evaluation.likelihood import score_pairs
from utils.evaluation.preferences import answer_likelihoods, preference_accuracy
from utils.model.checkpoints import load_model


@pytest.fixture(scope="module")
def loaded(checkpoint_dir):
    return load_model(checkpoint_dir, device="cpu")


def accuracy(loaded, rows):
    pairs = [preference(row) for row in rows]
    length = loaded.context_length
    encoded = build_dpo_rows(pairs, TEMPLATES["chatml"], loaded.encoder, length)
    return preference_accuracy(answer_likelihoods(loaded, encoded))


def test_short_answers_win_where_all_tokens_are_about_as_likely(loaded):
    short, long = "Yes.", "It returns the number of items of a container."
    rows = [{"prompt": "Why?", "chosen": short, "rejected": long}] * 3
    rows.append({"prompt": "Why?", "chosen": long, "rejected": short})
    found = accuracy(loaded, rows)
    assert (found.value, found.count) == (0.75, 4)


def test_the_answer_with_its_stop_token_is_compared(loaded):
    template = TEMPLATES["chatml"]
    prompt = template.encode_prompt([{"role": "user", "content": "Why?"}], loaded.encoder)
    answers = [template.encode_answer(text, loaded.encoder) for text in ("a key", "a list")]
    assert all(answer[-1] == template.stop_id(loaded.encoder) for answer in answers)
    (first, _), (second, _) = score_pairs(loaded, [(prompt, answer) for answer in answers])
    row = {"prompt": "Why?", "chosen": "a key", "rejected": "a list"}
    assert accuracy(loaded, [row]).value == float(first > second)


def test_answers_as_likely_are_no_win_and_equal_ones_are_left_out(loaded):
    assert preference_accuracy([(-1.0, -1.0), (-1.0, -2.0)]).value == 0.5
    row = {"prompt": [{"role": "user", "content": "Hi"}], "chosen": "a", "rejected": "a"}
    assert accuracy(loaded, [row, {**row, "rejected": "b"}]).count == 1
    with pytest.raises(DataError, match=r"none of 1 preference pairs .*\(1 same_answers;"):
        accuracy(loaded, [row])


def test_rows_that_do_not_fit_are_left_out(loaded):
    long = {"prompt": "Why?", "chosen": "because " * 200, "rejected": "no"}
    fits = {"prompt": "Why?", "chosen": "yes", "rejected": "no way at all"}
    assert accuracy(loaded, [long, fits]).count == 1
    with pytest.raises(DataError, match=r"\(1 too_long; the context has 128 tokens\)"):
        accuracy(loaded, [long])
