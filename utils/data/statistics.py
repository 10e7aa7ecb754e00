"""Counts what was prepared: every document and every character is accounted for.

No dates, no paths, no timings: the same data give the same numbers.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from utils.config.filters import load_profile
from utils.config.prepare import PrepareConfig
from utils.data.corpus.corpus import KEPT, Corpus
from utils.data.corpus.rejected import Rejected
from utils.data.corpus.sources import Source, source_files
from utils.data.growth import Files
from utils.data.source_statistics import character_account, document_account, source_manifests
from utils.tokenizers.control_tokens import CHAT_TOKENS
from utils.tokenizers.language_samples import bytes_per_token
from utils.tokenizers.tokenizer import Tokenizer

PERCENTILES = (0, 5, 25, 50, 75, 95, 100)


@dataclass
class Outcome:
    """Everything the cards are made from."""

    cfg: PrepareConfig
    sources: list[Source]
    rounds: list[Files]
    """Files of each round, for an input that can grow."""
    rejected: Rejected
    corpus: Corpus
    decontamination: dict[str, Any] | None
    """Findings of the protected texts; None: not looked for."""
    tokenizer: Tokenizer
    trained_on: int
    """Characters the tokenizer was trained on; 0 for one that was used again."""
    splits: dict[str, dict[str, Any]]
    """Entry of each split in the manifest."""

    @cached_property
    def manifests(self) -> list[dict[str, Any]]:
        """Account of each source, as sources/NAME.json has it."""
        manifests = source_manifests(self.sources, self.corpus, self.rejected)
        for name, split in self.splits.items():
            tokens = sum(manifest["splits"][name]["tokens"] for manifest in manifests)
            assert tokens == split["tokens"], (name, tokens)
        return manifests


def statistics(outcome: Outcome) -> dict[str, Any]:
    """Return stats.json."""
    cfg, counts = outcome.cfg, outcome.corpus.counts
    lengths, losses = _lengths(outcome.corpus), outcome.rejected.total
    characters = sum(length * count for length, count in lengths.items())
    return {
        "format": 1,
        "name": cfg.name,
        "documents": document_account(counts, losses, outcome.corpus.num_kept),
        "characters": character_account(counts, losses, characters),
        "document_characters": _percentiles(lengths),
        "language_unknown": counts["language_unknown"],
        "files": source_files(outcome.sources),
        "rounds": _rounds(outcome),
        "sources": [_source(manifest) for manifest in outcome.manifests],
        "labels": _labels(outcome),
        "splits": _splits(outcome.splits),
        "tokenizer": _tokenizer(outcome),
        "decontamination": outcome.decontamination,
        "filter_profile": {
            "name": cfg.filter_profile,
            **load_profile(cfg.filter_profile).model_dump(mode="json"),
        },
        "minhash_threshold": cfg.minhash_threshold if cfg.use_minhash else None,
        "settings": {
            key: value
            for key, value in cfg.resolved().items()
            if key.startswith(("min_", "max_length", "language", "train_", "sequence_", "redact"))
        },
    }


def _lengths(corpus: Corpus) -> Counter[int]:
    """Return how many kept documents have how many characters."""
    lengths: Counter[int] = Counter()
    for characters in corpus.kept("characters"):
        lengths.update(characters.tolist())
    return lengths


def _percentiles(lengths: Counter[int]) -> dict[str, int]:
    """Return the lengths at PERCENTILES of the documents (the nearest of them)."""
    ordered = sorted(lengths)
    ends = np.cumsum([lengths[length] for length in ordered])
    places = np.rint(np.array(PERCENTILES) / 100 * (ends[-1] - 1))
    found = np.searchsorted(ends, places, "right").tolist()
    return {str(at): ordered[place] for at, place in zip(PERCENTILES, found, strict=True)}


def _source(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return what stats.json says of a source."""
    shown = ("name", "input", "revision", "wanted_share", "observed_share")
    return {key: manifest[key] for key in shown} | {
        "documents": manifest["documents"]["kept"],
        "characters": manifest["characters"]["kept"],
        "tokens": sum(split["tokens"] for split in manifest["splits"].values()),
    }


def _rounds(outcome: Outcome) -> list[dict[str, int]]:
    """Return files and documents of each round of an input that can grow."""
    corpus = outcome.corpus
    firsts = [0, *corpus.borders[:-1]]
    kept = [
        sum(int(np.count_nonzero(fates <= KEPT)) for _, fates in corpus.parts(first, last))
        for first, last in zip(firsts, corpus.borders, strict=True)
    ]
    return [
        {"files": len(files), "documents": documents}
        for files, documents in zip(outcome.rounds, kept, strict=False)
    ]


def _labels(outcome: Outcome) -> dict[str, int]:
    """Return the characters of each label in the rows' `source`, the largest first."""
    counted: Counter[str] = Counter()
    for unit, fates in outcome.corpus.parts():
        kept = fates <= KEPT
        sums = np.bincount(unit.column("labels")[kept], unit.column("characters")[kept])
        for label, characters in zip(unit.record()["labels"], sums.tolist(), strict=False):
            counted[label] += int(characters)
    shown = {label: characters for label, characters in counted.items() if characters}
    return dict(sorted(shown.items(), key=lambda item: (-item[1], item[0])))


def _splits(splits: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        name: {
            "documents": split["documents"],
            "tokens": split["tokens"],
            "text_bytes": split["text_bytes"],
            "shards": len(split["token_shards"]),
            "bytes_per_token": round(
                split["text_bytes"] / max(split["tokens"] - split["documents"], 1), 4
            ),
        }
        for name, split in splits.items()
    }


def _tokenizer(outcome: Outcome) -> dict[str, Any]:
    validation, tokenizer = _splits(outcome.splits)["val"], outcome.tokenizer
    control = tokenizer.control_tokens()
    known = {number: token for token, number in control.items()}
    return {
        "type": tokenizer.type,
        "file": tokenizer.FILE,
        "sha256": tokenizer.sha256,
        "vocab_size": tokenizer.vocab_size,
        "eos": {"id": tokenizer.ids.eos, "token": known[tokenizer.ids.eos]},
        "pad": {"id": tokenizer.ids.pad, "token": known[tokenizer.ids.pad]},
        "chat": {token: control[token] for token in CHAT_TOKENS},
        "trained_on_characters": outcome.trained_on,
        "reused": outcome.trained_on == 0,
        "heldout_bytes_per_token": validation["bytes_per_token"],
        "heldout_bytes": validation["text_bytes"],
        "languages_bytes_per_token": bytes_per_token(tokenizer),
    }
