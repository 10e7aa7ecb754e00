"""The language filter is repeatable, and careful where it cannot know."""

import pytest

from utils.data.language import check_language, language_probability
from utils.errors import ConfigError

ENGLISH = "The quick brown fox jumps over the lazy dog while the sun is shining on the old house. "
GERMAN = (
    "Der schnelle braune Fuchs springt \u00fcber den faulen Hund, w\u00e4hrend die Sonne scheint. "
)


def test_languages_are_told_apart_the_same_way_every_time():
    assert language_probability(ENGLISH * 3, "en") > 0.9
    assert language_probability(GERMAN * 3, "en") < 0.1
    answers = {language_probability(ENGLISH + GERMAN, "en") for _ in range(5)}
    assert len(answers) == 1


def test_a_text_with_too_few_letters_cannot_be_told():
    assert language_probability("1234 5678 90 == 12", "en") is None
    assert language_probability("Hello there", "en") is None
    assert language_probability("", "en") is None


def test_a_short_text_in_another_script_can_be_told():
    russian = "\u0423\u0442\u0440\u043e\u043c \u0448\u0451\u043b \u0434\u043e\u0436\u0434\u044c"
    assert language_probability(russian, "en") == 0.0


def test_a_foreign_beginning_does_not_condemn_a_book():
    assert language_probability(GERMAN * 5 + ENGLISH * 40, "en") > 0.9
    assert language_probability(GERMAN * 40 + ENGLISH * 5, "en") < 0.1


def test_a_code_without_country_means_all_its_variants():
    chinese = "\u4eca\u5929\u5929\u6c14\u5f88\u597d\uff0c\u6211\u4eec\u53bb\u6563\u6b65\u5427"
    assert language_probability(chinese * 3, "zh") > 0.9


def test_an_unknown_code_is_refused_with_the_known_ones():
    check_language("en")
    check_language("zh")
    with pytest.raises(ConfigError, match=r"language = 'xx'.*af, ar.*or null"):
        check_language("xx")
