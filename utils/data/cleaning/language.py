"""Tell the language of a document with py3langid or langdetect, the same way every time.

Knows nothing about what is done with the answer.
"""

import string
from collections.abc import Sequence
from functools import lru_cache
from statistics import median
from typing import Any

from utils.config.prepare import LanguageDetector
from utils.data.cleaning.langid import language_model
from utils.errors import ConfigError

SAMPLE_CHARACTERS = 400
"""A detector reads this much at a time; more changes no answer."""
SURE = 0.9
"""A beginning this probable needs no second look."""
MIN_LETTERS = 40
"""Below this many Latin letters a guess is a coin toss, so the text is kept."""
LETTERS = string.ascii_letters.encode()
FOREIGN_LETTER = 3
"""A letter of another script says more, by about this many Latin ones."""


@lru_cache(maxsize=1)
def _langdetect() -> Any:
    """Return langdetect's profiles with a fixed seed (its sampling is random without one)."""
    from langdetect import DetectorFactory, detector_factory

    DetectorFactory.seed = 0
    detector_factory.init_factory()
    return detector_factory._factory


def check_language(language: str | None, detector: LanguageDetector = "py3langid") -> None:
    """Check that `language` is an ISO code that can be detected, or None (any language).

    Raises:
        ConfigError: it is not; the message lists the codes.
    """
    if language is None:
        return
    codes = language_model().labels if detector == "py3langid" else _langdetect().get_lang_list()
    if not any(_same(code, language) for code in codes):
        known = ", ".join(sorted(set(codes)))
        raise ConfigError(
            f"language = {language!r} cannot be detected by {detector}: use one of {known}, or null"
        )


def language_probabilities(
    texts: Sequence[str], language: str, detector: LanguageDetector = "py3langid"
) -> list[float | None]:
    """Return for each text the probability (0 to 1) that it is in `language`; None: unknown.

    The beginning decides. Where it speaks against a long text - a table of contents, a heading in
    capitals - the middle and the end are asked too, and the median of the three counts.
    """
    answers = _ask([text[:SAMPLE_CHARACTERS] for text in texts], language, detector)
    doubtful = [
        number
        for number, (text, first) in enumerate(zip(texts, answers, strict=True))
        if first is not None and first < SURE and len(text) >= 3 * SAMPLE_CHARACTERS
    ]
    samples = []
    for number in doubtful:
        middle = (len(texts[number]) - SAMPLE_CHARACTERS) // 2
        samples.append(texts[number][middle : middle + SAMPLE_CHARACTERS])
        samples.append(texts[number][-SAMPLE_CHARACTERS:])
    more = _ask(samples, language, detector)
    for at, number in enumerate(doubtful):
        three = (answers[number], *more[2 * at : 2 * at + 2])
        answers[number] = median(answer for answer in three if answer is not None)
    return answers


def _ask(samples: list[str], language: str, detector: LanguageDetector) -> list[float | None]:
    answers: list[float | None] = [None] * len(samples)
    asked = [number for number, sample in enumerate(samples) if _can_be_told(sample)]
    chosen = [samples[number] for number in asked]
    found = (
        _py3langid(chosen, language)
        if detector == "py3langid"
        else (_guess_langdetect(sample, language) for sample in chosen)
    )
    for number, answer in zip(asked, found, strict=True):
        answers[number] = answer
    return answers


def _can_be_told(sample: str) -> bool:
    """Return whether there are letters enough, each of another script counting for several."""
    if sample.isascii():
        data = sample.encode("ascii")
        return len(data) - len(data.translate(None, LETTERS)) >= MIN_LETTERS
    letters = [letter for letter in sample if letter.isalpha()]
    foreign = sum(letter > "\u02ff" for letter in letters)
    return len(letters) + FOREIGN_LETTER * foreign >= MIN_LETTERS


def _py3langid(samples: list[str], language: str) -> list[float]:
    model = language_model()
    wanted = [_same(label, language) for label in model.labels]
    return model.probabilities(samples)[:, wanted].sum(axis=1).tolist()


def _guess_langdetect(sample: str, language: str) -> float | None:
    from langdetect.lang_detect_exception import LangDetectException

    detector = _langdetect().create()
    detector.append(sample)
    try:
        guesses = detector.get_probabilities()
    except LangDetectException:
        return None
    return sum(guess.prob for guess in guesses if _same(guess.lang, language)) if guesses else None


def _same(code: str, language: str) -> bool:
    """`zh` stands for `zh-cn` and `zh-tw`."""
    return code == language.lower() or code.split("-")[0] == language.lower()
