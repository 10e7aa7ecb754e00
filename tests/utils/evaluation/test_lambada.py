import math

import pytest

from utils.evaluation.benchmark_files import Rows
from utils.evaluation.lambada import evaluate_lambada, split_last_word
from utils.evaluation.likelihood import encode_pair, score_pairs
from utils.model.checkpoints import load_model


def test_the_last_blank_separated_word_is_the_target():
    assert split_last_word("I don't care about signs") == ("I don't care about", " signs")
    assert split_last_word('one\n\n"two" he said') == ('one\n\n"two" he', " said")
    assert split_last_word("two  blanks") == ("two ", " blanks")
    assert split_last_word("word") == ("", " word")


def test_perplexity_is_of_the_word_and_accuracy_of_exact_matches(checkpoint_dir):
    loaded = load_model(checkpoint_dir, device="cpu")
    texts = ["the list of items", "a value of the key", "return the string"]
    rows = Rows([{"text": text} for text in texts], "lambada_test.jsonl")
    result, records = evaluate_lambada(loaded, rows, max_samples=2)
    pairs = [encode_pair(loaded, *split_last_word(text)) for text in texts[:2]]
    scores = [score for score, _ in score_pairs(loaded, pairs)]
    assert result["perplexity"]["value"] == pytest.approx(math.exp(-sum(scores) / 2))
    assert result["accuracy"]["count"] == len(records) == 2
    assert records[1]["word"] == " key"
