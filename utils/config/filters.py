"""Filter profiles: named limits on what stage 01 measures of a document."""

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from utils.checkout import CONFIG
from utils.config.base import StageConfig
from utils.config.kinds import FileOnly
from utils.errors import ConfigError

PROFILES = CONFIG / "filters"
Measure = Literal[
    "words", "mean_word_length", "hashes_per_word", "ellipses_per_word", "words_with_letter",
    "stop_words", "bullet_lines", "ellipsis_lines", "duplicate_lines",
    "duplicate_line_characters", "duplicate_paragraphs", "duplicate_paragraph_characters",
    "lines_with_end", "short_lines", "sentences", "curly_brackets", "lorem_ipsum",
    "top_2gram_characters", "top_3gram_characters", "top_4gram_characters",
    "duplicate_5gram_characters", "duplicate_6gram_characters", "duplicate_7gram_characters",
    "duplicate_8gram_characters", "duplicate_9gram_characters", "duplicate_10gram_characters",
]  # fmt: skip


class Limit(StageConfig):
    """The range in which a measure of a document must lie."""

    measure: Measure
    """What is measured (`utils.data.cleaning.measures`)."""
    min: float | None = None
    """Least value."""
    max: float | None = None
    """Largest value."""
    source: str
    """Who found it useful, and where."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError(f"{self.measure} has neither min nor max")
        return self


class FilterProfile(StageConfig):
    """Which documents of a kind of source are kept, and which of their lines."""

    limits: FileOnly[tuple[Limit, ...]] = ()
    """Checked in this order; the first that is not met is the reason of the rejection."""
    dropped_lines: tuple[str, ...] = ()
    """Lines that hold one of these (in any case) are removed."""
    dropped_lines_source: str = ""
    """Who found that useful."""


def load_profile(name: str) -> FilterProfile:
    """Return the profile config/filters/NAME.json, or the one in a file of one's own.

    Raises:
        ConfigError: there is none, or it does not validate.
    """
    path = PROFILES / f"{name}.json"
    if not path.is_file():
        path = Path(name).expanduser()
    if not path.is_file():
        known = ", ".join(sorted(path.stem for path in PROFILES.glob("*.json")))
        raise ConfigError(f"no filter profile {name!r}: use one of {known}, or a JSON file")
    return FilterProfile.build(FilterProfile.read_file(path), str(path))
