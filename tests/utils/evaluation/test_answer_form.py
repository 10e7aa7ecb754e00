import pytest

from utils.evaluation.answer_form import PARTS, SmokePrompt, distinctness, quality


def prompt(**hints):
    return SmokePrompt(category="c", prompt="p", **hints)


def test_the_weights_sum_to_one():
    assert sum(weight for weight, _ in PARTS.values()) == pytest.approx(1.0)


def test_an_empty_answer_scores_nothing():
    assert quality(prompt(), " \n", ended=True) == {"score": 0.0}


def test_a_perfect_answer_scores_one():
    hints = prompt(keywords=["Paris"], form="capital")
    assert quality(hints, "The capital is Paris.", ended=True)["score"] == pytest.approx(1.0)


def test_the_parts_that_apply_are_weighted():
    # ends 0 of .25, loops .30, length .15, keyword 0 of .15: .45 of .85
    found = quality(prompt(keywords=["Paris"]), "It is the city of Rome", ended=False)
    assert found["score"] == pytest.approx(0.45 / 0.85)
    # a continuation is not expected to end
    assert quality(prompt(), "It is the city of Rome", ended=None)["score"] == pytest.approx(1.0)


def test_short_answers_count_in_proportion():
    assert quality(prompt(min_words=10), "Only four words here", ended=True)["length"] == 0.4


def test_circles_are_noticed_with_and_without_blanks():
    assert distinctness("the cat sat on the mat and looked out") == 1.0
    assert distinctness("a b c " * 30) == 0.0
    assert distinctness("k" * 90) == 0.0
    assert distinctness("so it goes on " + "ho" * 60) == 0.0
    # 3-grams of "a b c a b c a": abc bca cab abc bca, 3 of 5 distinct: (.6 - .3) / .6
    assert distinctness("a b c a b c a") == pytest.approx(0.5)
    assert distinctness("ab") == 1.0


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        ("list", "red, green, blue", "red"),
        ("list", "- red\n- green", "- red"),
        ("one_line", "a line", "two\nlines"),
        ("question", "How was your day?", "Fine."),
        ("capital", "The Rhine", "the Rhine"),
    ],
)
def test_forms_are_checked(form, good, bad):
    assert quality(prompt(form=form), good, ended=True)["form"] == 1.0
    assert quality(prompt(form=form), bad, ended=True)["form"] == 0.0


def test_keywords_are_whole_words():
    hints = prompt(keywords=["five", "5"])
    assert quality(hints, "There are Five!", ended=True)["keywords"] == 1.0
    assert quality(hints, "There are fiveteen or 55", ended=True)["keywords"] == 0.0


def test_the_language_is_told_by_its_small_words():
    hints = prompt(language_words=["je", "et"])
    assert quality(hints, "Je vais bien", ended=True)["form"] == 1.0
    assert quality(hints, "I am fine", ended=True)["form"] == 0.0
