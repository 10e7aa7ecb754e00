"""What one worker does to a batch of documents: clean, check, split, sketch. A pure function.

Every document that goes in comes out as kept pieces or as one rejection with its reason, and the
characters add up: in = kept + dropped + removed by cleaning.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from utils.config.prepare import LanguageDetector
from utils.data.cleaning import clean_text, split_long
from utils.data.dedup import band_keys, banding, text_digest
from utils.data.language import language_probability
from utils.data.records import Document, row_line

SAMPLE_CHARACTERS = 500
"""Beginning of a rejected document that is kept for inspection."""


@dataclass(frozen=True)
class Rules:
    """The settings that a worker needs."""

    min_length: int
    max_length: int
    language: str | None
    language_detector: LanguageDetector
    language_threshold: float
    minhash_threshold: float | None
    """None: no band keys are wanted."""

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
    """The result for one batch; the lists and the first axes are parallel."""

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
    texts: list[str] = []
    for document in documents:
        result.counts["documents_in"] += 1
        result.counts["characters_in"] += len(document.text)
        text = clean_text(document.text)
        rejection = _reject(document, text, rules, result.counts)
        if rejection is not None:
            result.rejections.append(rejection)
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


def _reject(document: Document, text: str, rules: Rules, counts: Counter[str]) -> Rejection | None:
    """Return why a cleaned document is dropped, or None."""
    if len(text) < rules.min_length:
        detail = f"{len(text)} characters, fewer than {rules.min_length}"
        return _rejection(document, text, "too_short", detail)
    if rules.language is None:
        return None
    probability = language_probability(text, rules.language, rules.language_detector)
    if probability is None:
        counts["language_unknown"] += 1
    elif probability < rules.language_threshold:
        detail = f"{rules.language} with probability {probability:.2f}"
        return _rejection(document, text, "other_language", detail)
    return None


def _rejection(document: Document, text: str, reason: str, detail: str) -> Rejection:
    return Rejection(document.id, reason, detail, len(text), text[:SAMPLE_CHARACTERS])
