"""Tell the language of a document with langdetect, the same way every time.

Knows nothing about what is done with the answer.
"""

from functools import lru_cache
from statistics import median
from typing import Any

from utils.errors import ConfigError

SAMPLE_CHARACTERS = 400
"""langdetect reads this much at a time: about a millisecond, and more changes no answer."""
SURE = 0.9
"""A beginning this probable needs no second look."""
MIN_LETTERS = 40
"""Below this many Latin letters a guess is a coin toss, so the text is kept."""
FOREIGN_LETTER = 3
"""A letter of another script says more, by about this many Latin ones."""


@lru_cache(maxsize=1)
def _detector() -> Any:
    """Return langdetect's profiles with a fixed seed (its sampling is random without one)."""
    from langdetect import DetectorFactory, detector_factory

    DetectorFactory.seed = 0
    detector_factory.init_factory()
    return detector_factory._factory


def check_language(language: str) -> None:
    """Check that `language` is an ISO code that can be detected.

    Raises:
        ConfigError: it is not; the message lists the codes.
    """
    known = sorted(_detector().get_lang_list())
    if not any(_same(code, language) for code in known):
        raise ConfigError(
            f"language = {language!r} cannot be detected: use one of {', '.join(known)}, or null"
        )


def language_probability(text: str, language: str) -> float | None:
    """Return the probability (0 to 1) that `text` is in `language`; None: it cannot be told.

    The beginning decides. Where it speaks against a long text - a table of contents, a heading in
    capitals - the middle and the end are asked too, and the median of the three counts.
    """
    first = _probability(text[:SAMPLE_CHARACTERS], language)
    if first is None or first >= SURE or len(text) < 3 * SAMPLE_CHARACTERS:
        return first
    middle = (len(text) - SAMPLE_CHARACTERS) // 2
    samples = (text[middle : middle + SAMPLE_CHARACTERS], text[-SAMPLE_CHARACTERS:])
    answers = [first, *(_probability(sample, language) for sample in samples)]
    return median(answer for answer in answers if answer is not None)


def _probability(sample: str, language: str) -> float | None:
    from langdetect.lang_detect_exception import LangDetectException

    letters = [letter for letter in sample if letter.isalpha()]
    if len(letters) + FOREIGN_LETTER * sum(letter > "\u02ff" for letter in letters) < MIN_LETTERS:
        return None
    detector = _detector().create()
    detector.append(sample)
    try:
        guesses = detector.get_probabilities()
    except LangDetectException:
        return None
    return sum(guess.prob for guess in guesses if _same(guess.lang, language))


def _same(code: str, language: str) -> bool:
    """`zh` stands for `zh-cn` and `zh-tw`."""
    return code == language.lower() or code.split("-")[0] == language.lower()
