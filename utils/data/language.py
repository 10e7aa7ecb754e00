"""Tell the language of a document with py3langid or langdetect, the same way every time.

Knows nothing about what is done with the answer.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from statistics import median
from typing import Any

from utils.config.prepare import LanguageDetector
from utils.errors import ConfigError

SAMPLE_CHARACTERS = 400
"""A detector reads this much at a time; more changes no answer."""
SURE = 0.9
"""A beginning this probable needs no second look."""
MIN_LETTERS = 40
"""Below this many Latin letters a guess is a coin toss, so the text is kept."""
FOREIGN_LETTER = 3
"""A letter of another script says more, by about this many Latin ones."""


@lru_cache(maxsize=1)
def _langdetect() -> Any:
    """Return langdetect's profiles with a fixed seed (its sampling is random without one)."""
    from langdetect import DetectorFactory, detector_factory

    DetectorFactory.seed = 0
    detector_factory.init_factory()
    return detector_factory._factory


@lru_cache(maxsize=1)
def _py3langid() -> Any:
    """Return py3langid's model, its scores as probabilities."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def check_language(language: str, detector: LanguageDetector = "py3langid") -> None:
    """Check that `language` is an ISO code that can be detected.

    Raises:
        ConfigError: it is not; the message lists the codes.
    """
    codes = _py3langid().labels if detector == "py3langid" else _langdetect().get_lang_list()
    if not any(_same(code, language) for code in codes):
        known = ", ".join(sorted(codes))
        raise ConfigError(
            f"language = {language!r} cannot be detected by {detector}: use one of {known}, or null"
        )


def language_probability(
    text: str, language: str, detector: LanguageDetector = "py3langid"
) -> float | None:
    """Return the probability (0 to 1) that `text` is in `language`; None: it cannot be told.

    The beginning decides. Where it speaks against a long text - a table of contents, a heading in
    capitals - the middle and the end are asked too, and the median of the three counts.
    """
    guess = partial(_probability, language=language, guesses=GUESSES[detector])
    first = guess(text[:SAMPLE_CHARACTERS])
    if first is None or first >= SURE or len(text) < 3 * SAMPLE_CHARACTERS:
        return first
    middle = (len(text) - SAMPLE_CHARACTERS) // 2
    samples = (text[middle : middle + SAMPLE_CHARACTERS], text[-SAMPLE_CHARACTERS:])
    answers = [first, *map(guess, samples)]
    return median(answer for answer in answers if answer is not None)


Guesses = list[tuple[str, float]]


def _probability(sample: str, language: str, guesses: Callable[[str], Guesses]) -> float | None:
    letters = [letter for letter in sample if letter.isalpha()]
    if len(letters) + FOREIGN_LETTER * sum(letter > "\u02ff" for letter in letters) < MIN_LETTERS:
        return None
    found = guesses(sample)
    return sum(share for code, share in found if _same(code, language)) if found else None


def _guess_py3langid(sample: str) -> Guesses:
    return _py3langid().rank(sample)


def _guess_langdetect(sample: str) -> Guesses:
    from langdetect.lang_detect_exception import LangDetectException

    detector = _langdetect().create()
    detector.append(sample)
    try:
        return [(guess.lang, guess.prob) for guess in detector.get_probabilities()]
    except LangDetectException:
        return []


GUESSES = {"py3langid": _guess_py3langid, "langdetect": _guess_langdetect}


def _same(code: str, language: str) -> bool:
    """`zh` stands for `zh-cn` and `zh-tw`."""
    return code == language.lower() or code.split("-")[0] == language.lower()
