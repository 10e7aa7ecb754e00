"""Counts of everything that does not come out, and a sample of it for a human to judge.

Knows nothing about why a document is rejected.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

from utils.data.cleaned import SAMPLES_PER_REASON


class Rejected:
    """Writes rejected/REASON.jsonl (the first of each reason) and bad_lines.jsonl (all)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "rejected"
        self._folder.mkdir(parents=True)
        self._files: dict[str, BinaryIO] = {}
        self.documents: Counter[str] = Counter()
        self.characters: Counter[str] = Counter()
        self._marked: Counter[str] = Counter()
        self.bad_lines = 0
        self.bad_characters = 0
        self.first_bad: dict[str, Any] | None = None

    def drop(self, reason: str, characters: int, record: dict[str, str | int]) -> None:
        """Count a dropped document; the first hundred of a reason are written down."""
        if self.documents[reason] < SAMPLES_PER_REASON:
            self.write(reason, record)
        self.count(reason, 1, characters)

    def count(self, reason: str, documents: int, characters: int) -> None:
        """Count dropped documents."""
        self.documents[reason] += documents
        self.characters[reason] += characters

    def merge(self, unit: dict[str, Any]) -> None:
        """Take over what a unit's record says of rejected documents and bad lines."""
        for reason, samples in unit["samples"].items():
            for record in samples[: max(SAMPLES_PER_REASON - self.documents[reason], 0)]:
                self.write(reason, record)
        for reason, (documents, characters) in unit["dropped"].items():
            self.count(reason, documents, characters)
        for bad in unit["bad"]:
            self.bad_lines += 1
            self.bad_characters += bad["bytes"]
            self.first_bad = self.first_bad or bad
            self.write("bad_lines", bad)

    def cut(self, reason: str, characters: int, records: list[dict[str, str | int]]) -> None:
        """Count what was cut out of a document that stays; the first parts are written down."""
        self.documents[reason] += 0
        self.characters[reason] += characters
        self.mark(reason, records)

    def mark(self, name: str, records: list[dict[str, str | int]]) -> None:
        """Write down the first hundred of what was noticed, without counting it as lost."""
        for record in records:
            self._marked[name] += 1
            if self._marked[name] <= SAMPLES_PER_REASON:
                self.write(name, record)

    def write(self, name: str, record: dict[str, str | int]) -> None:
        """Write down something without counting it."""
        if name not in self._files:
            self._files[name] = (self._folder / f"{name}.jsonl").open("wb")
        line = json.dumps(record, ensure_ascii=False, sort_keys=True) + "\n"
        self._files[name].write(line.encode("utf-8", "replace"))

    def close(self) -> None:
        """End all files."""
        for file in self._files.values():
            file.close()
