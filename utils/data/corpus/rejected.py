"""Counts of everything that does not come out, and a sample of it for a human to judge.

Knows nothing about why a document is rejected.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

SAMPLES_PER_REASON = 100
"""Rejected documents of a reason that are kept for inspection."""
BAD_LINES = "bad_lines"

Sample = Mapping[str, str | int]


class LossRecorder:
    """Counts what a step takes out of a source, and keeps the first of each reason."""

    def __init__(self) -> None:
        self._dropped: dict[str, list[int]] = {}
        self._samples: dict[str, list[Sample]] = {}
        self._bad: list[Sample] = []

    def count(self, reason: str, documents: int, characters: int) -> None:
        """Count dropped documents, or with 0 documents what was cut out of one that stays."""
        counts = self._dropped.setdefault(reason, [0, 0])
        counts[0] += documents
        counts[1] += characters

    def sample(self, name: str, sample: Sample) -> None:
        """Write down something without counting it; the first hundred of a name are kept."""
        samples = self._samples.setdefault(name, [])
        if len(samples) < SAMPLES_PER_REASON:
            samples.append(sample)

    def bad(self, line: Sample) -> None:
        """Write down and count a line that could not be read."""
        self._bad.append(line)

    def record(self) -> dict[str, Any]:
        """Return everything for `Rejected.merge`."""
        return {"dropped": self._dropped, "samples": self._samples, "bad": self._bad}


@dataclass
class Losses:
    """Counts of what does not come out of a source."""

    documents: Counter[str] = field(default_factory=Counter)
    """Number of dropped documents by reason."""
    characters: Counter[str] = field(default_factory=Counter)
    bad_lines: int = 0
    bad_bytes: int = 0


class Rejected:
    """Writes rejected/REASON.jsonl (the first of each reason) and bad_lines.jsonl (all)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "rejected"
        self._folder.mkdir(parents=True)
        self._files: dict[str, BinaryIO] = {}
        self._written: Counter[str] = Counter()
        self.sources: defaultdict[int, Losses] = defaultdict(Losses)
        """Losses of each source (its number)."""
        self.first_bad: dict[str, Any] | None = None

    @property
    def total(self) -> Losses:
        """Return the losses of all sources."""
        total = Losses()
        for one in self.sources.values():
            total.documents.update(one.documents)
            total.characters.update(one.characters)
            total.bad_lines += one.bad_lines
            total.bad_bytes += one.bad_bytes
        return total

    def merge(self, source: int, record: Mapping[str, Any]) -> None:
        """Take over what the record of a step says of a source's documents and bad lines."""
        for name, samples in record["samples"].items():
            for sample in samples[: max(SAMPLES_PER_REASON - self._written[name], 0)]:
                self._write(name, sample)
        losses = self.sources[source]
        for reason, (documents, characters) in record["dropped"].items():
            losses.documents[reason] += documents
            losses.characters[reason] += characters
        for bad in record["bad"]:
            losses.bad_lines += 1
            losses.bad_bytes += bad["bytes"]
            self.first_bad = self.first_bad or bad
            self._write(BAD_LINES, bad)

    def merge_all(self, records: Mapping[int, Mapping[str, Any]]) -> None:
        """Take over the records of a step by number of the source."""
        for source, record in records.items():
            self.merge(source, record)

    def _write(self, name: str, sample: Sample) -> None:
        if name not in self._files:
            self._files[name] = (self._folder / f"{name}.jsonl").open("wb")
        line = json.dumps(sample, ensure_ascii=False, sort_keys=True) + "\n"
        self._files[name].write(line.encode("utf-8", "replace"))
        self._written[name] += 1

    def close(self) -> None:
        """End all files."""
        for file in self._files.values():
            file.close()
