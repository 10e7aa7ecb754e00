"""The language filter is repeatable, and careful where it cannot know."""

import pytest

from utils.data.cleaning.language import check_language, language_probabilities
from utils.errors import ConfigError

ENGLISH = "The quick brown fox jumps over the lazy dog while the sun is shining on the old house. "
GERMAN = (
    "Der schnelle braune Fuchs springt \u00fcber den faulen Hund, w\u00e4hrend die Sonne scheint. "
)


def language_probability(text, language, detector):
    """Ask about one text, among others that must not matter."""
    others = [GERMAN * 9, "too short", ENGLISH * 30]
    return language_probabilities([*others, text, *others], language, detector)[3]


@pytest.fixture(params=["py3langid", "langdetect"])
def detector(request):
    return request.param


def test_languages_are_told_apart_the_same_way_every_time(detector):
    assert language_probability(ENGLISH * 3, "en", detector) > 0.9
    assert language_probability(GERMAN * 3, "en", detector) < 0.1
    answers = {language_probability(ENGLISH + GERMAN, "en", detector) for _ in range(5)}
    assert len(answers) == 1


def test_a_text_with_too_few_letters_cannot_be_told(detector):
    assert language_probability("1234 5678 90 == 12", "en", detector) is None
    assert language_probability("Hello there", "en", detector) is None
    assert language_probability("", "en", detector) is None


def test_a_short_text_in_another_script_can_be_told(detector):
    russian = "\u0423\u0442\u0440\u043e\u043c \u0448\u0451\u043b \u0434\u043e\u0436\u0434\u044c"
    assert language_probability(russian, "en", detector) < 0.001


def test_a_foreign_beginning_does_not_condemn_a_book(detector):
    assert language_probability(GERMAN * 5 + ENGLISH * 40, "en", detector) > 0.9
    assert language_probability(GERMAN * 40 + ENGLISH * 5, "en", detector) < 0.1


def test_a_code_without_country_means_all_its_variants(detector):
    chinese = "\u4eca\u5929\u5929\u6c14\u5f88\u597d\uff0c\u6211\u4eec\u53bb\u6563\u6b65\u5427"
    assert language_probability(chinese * 3, "zh", detector) > 0.9


def test_an_unknown_code_is_refused_with_the_known_ones(detector):
    check_language("en", detector)
    check_language("zh", detector)
    with pytest.raises(ConfigError, match=rf"language = 'xx'.*{detector}.*af.* ar.*or null"):
        check_language("xx", detector)
