"""Cleans, checks, splits and sketches a batch of documents: the pure function of a worker.

Every document that goes in comes out as kept pieces or as one rejection with its reason, and the
characters add up: in = kept + dropped + removed by cleaning.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from utils.config.prepare import LanguageDetector
from utils.data.cleaning.language import language_probabilities
from utils.data.cleaning.measures import MEASURES, Page
from utils.data.cleaning.pii import redact
from utils.data.cleaning.text import clean_text, split_long, without_lines
from utils.data.dedup.minhash import band_keys, banding, text_digest
from utils.reading.documents import Document, row_line

SAMPLE_CHARACTERS = 500
"""Beginning of a rejected document that is kept for inspection."""


@dataclass(frozen=True)
class Rules:
    """Settings that a worker needs."""

    min_length: int
    max_length: int
    language: str | None
    language_detector: LanguageDetector
    language_threshold: float
    minhash_threshold: float | None
    """None: no band keys are wanted."""
    limits: tuple[tuple[str, float | None, float | None], ...] = ()
    """(measure, least, most) of a filter profile, in the order in which they are checked."""
    dropped_lines: tuple[str, ...] = ()
    """Lines that hold one of these, in any case, are removed."""
    redact_pii: bool = False
    """Put stand-ins in the place of e-mail addresses and public IP addresses."""

    @property
    def bands(self) -> int:
        """Keys for each document."""
        return banding(self.minhash_threshold)[0] if self.minhash_threshold else 0


@dataclass(frozen=True)
class Rejection:
    """A document that is not kept."""

    id: str
    reason: str
    detail: str
    characters: int
    text: str
    """Its beginning."""

    def record(self) -> dict[str, str | int]:
        """Return it as a line of rejected/REASON.jsonl."""
        return {
            "id": self.id,
            "detail": self.detail,
            "characters": self.characters,
            "text": self.text,
        }


@dataclass
class Refined:
    """Result for one batch; the lists and the first axes are parallel."""

    lines: list[bytes] = field(default_factory=list)
    """JSON lines with their line end, as they are stored."""
    labels: list[str] = field(default_factory=list)
    """Source label of each document."""
    characters: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    keys: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.uint64))
    """Band keys, shape [pieces, bands]."""
    rejections: list[Rejection] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """documents_in, characters_in, pieces_added, removed_by_cleaning, language_unknown."""


def refine(batch: tuple[list[Document], Rules]) -> Refined:
    """Return what is left of a batch of documents."""
    documents, rules = batch
    result = Refined()
    cleaned = [_cleaned(document.text, rules) for document in documents]
    reasons = _judge(cleaned, rules, result.counts)
    texts: list[str] = []
    for document, text, reason in zip(documents, cleaned, reasons, strict=True):
        result.counts["documents_in"] += 1
        result.counts["characters_in"] += len(document.text)
        if reason is not None:
            beginning = text[:SAMPLE_CHARACTERS]
            result.rejections.append(Rejection(document.id, *reason, len(text), beginning))
            result.counts["removed_by_cleaning"] += len(document.text) - len(text)
            continue
        pieces = split_long(text, rules.max_length)
        result.counts["pieces_added"] += len(pieces) - 1
        result.counts["removed_by_cleaning"] += len(document.text) - sum(map(len, pieces))
        for number, piece in enumerate(pieces):
            own_id = document.id if number == 0 else f"{document.id}#{number + 1}"
            _keep(result, Document(own_id, piece, document.source))
        texts += pieces
    result.keys = np.empty((len(texts), 0), np.uint64)
    if rules.minhash_threshold is not None:
        result.keys = band_keys(texts, rules.minhash_threshold)
    return result


def _keep(result: Refined, piece: Document) -> None:
    row = {"id": piece.id, "text": piece.text, "source": piece.source}
    result.lines.append(row_line(row))
    result.labels.append(piece.source)
    result.characters.append(len(piece.text))
    result.digests.append(text_digest(piece.text))


def _cleaned(text: str, rules: Rules) -> str:
    text = clean_text(text)
    if rules.dropped_lines:
        text = without_lines(text, rules.dropped_lines)
    return redact(text) if rules.redact_pii else text


Reason = tuple[str, str]
"""Name of the rule that a document does not meet, and how far it is from it."""


def _judge(texts: list[str], rules: Rules, counts: Counter[str]) -> list[Reason | None]:
    """Return why each cleaned document is dropped, or None."""
    reasons = [_why_short(text, rules) or _why_odd(text, rules) for text in texts]
    left = [number for number, reason in enumerate(reasons) if reason is None]
    if rules.language is None:
        return reasons
    chosen = [texts[number] for number in left]
    answers = language_probabilities(chosen, rules.language, rules.language_detector)
    for number, probability in zip(left, answers, strict=True):
        if probability is None:
            counts["language_unknown"] += 1
        elif probability < rules.language_threshold:
            detail = f"{rules.language} with probability {probability:.2f}"
            reasons[number] = ("other_language", detail)
    return reasons


def _why_short(text: str, rules: Rules) -> Reason | None:
    if len(text) >= rules.min_length:
        return None
    return "too_short", f"{len(text)} characters, fewer than {rules.min_length}"


def _why_odd(text: str, rules: Rules) -> Reason | None:
    """Return the first limit of the profile that a document does not keep."""
    page = Page(text)
    for measure, least, most in rules.limits:
        value = MEASURES[measure](page)
        if least is not None and value < least:
            return measure, f"{value:.4g}, less than {least:g}"
        if most is not None and value > most:
            return measure, f"{value:.4g}, more than {most:g}"
    return None
