"""Writes the files of a prepared folder that describe it: cards, statistics, settings, sources.

Knows nothing about how the numbers come about.
"""

from pathlib import Path

from utils.data.cards import data_card, tokenizer_card
from utils.data.growth import write_rounds
from utils.data.identity import settings_without_places
from utils.data.statistics import Outcome, statistics
from utils.files import to_json


def describe(outcome: Outcome, result: Path) -> None:
    """Write stats.json, sources/, inputs.json, both cards and settings.json."""
    stats = statistics(outcome)
    (result / "stats.json").write_text(to_json(stats), encoding="utf-8")
    (result / "sources").mkdir()
    for source, manifest in zip(outcome.cfg.sources, outcome.manifests, strict=True):
        (result / "sources" / f"{source.file_stem}.json").write_text(to_json(manifest), "utf-8")
    write_rounds(result, outcome.rounds)
    (result / "DATA_CARD.md").write_text(data_card(stats), encoding="utf-8")
    (result / "tokenizer" / "TOKENIZER_CARD.md").write_text(tokenizer_card(stats), encoding="utf-8")
    (result / "settings.json").write_text(
        to_json(settings_without_places(outcome.cfg)), encoding="utf-8"
    )
