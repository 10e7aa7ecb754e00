"""Accounts for each source: its files, its documents, characters and tokens, its share.

No dates, no paths, no timings: the same data give the same manifest, on any number of processes.
"""

from collections import Counter
from typing import Any

import numpy as np

from utils.config.prepare import MixtureSource
from utils.data.corpus.corpus import SPLITS, Corpus
from utils.data.corpus.mixture import wanted_shares
from utils.data.corpus.rejected import Losses, Rejected
from utils.data.corpus.sources import Source


def document_account(counts: Counter[str], losses: Losses, kept: int) -> dict[str, Any]:
    """Return the account in + added_by_splitting = kept + dropped + bad."""
    came = counts["documents_in"] + losses.bad_lines
    more = {"in": came, "added_by_splitting": counts["pieces_added"]}
    return _account(more, kept, losses.documents, losses.bad_lines)


def character_account(counts: Counter[str], losses: Losses, kept: int) -> dict[str, Any]:
    """Return the account in = kept + dropped + removed_by_cleaning + bad (in bytes)."""
    came = counts["characters_in"] + losses.bad_bytes
    more = {"in": came, "removed_by_cleaning": counts["removed_by_cleaning"]}
    return _account(more, kept, losses.characters, losses.bad_bytes)


def _account(more: dict[str, int], kept: int, dropped: Counter[str], bad: int) -> dict[str, Any]:
    account = {**more, "kept": kept, "dropped": dict(sorted(dropped.items())), "bad": bad}
    came = more["in"] + more.get("added_by_splitting", 0)
    gone = kept + bad + sum(dropped.values()) + more.get("removed_by_cleaning", 0)
    assert came == gone, account
    return account


def source_manifests(
    sources: list[Source], corpus: Corpus, rejected: Rejected
) -> list[dict[str, Any]]:
    """Return the manifest of each source, in order."""
    held = {name: np.zeros((len(sources), 2), np.int64) for name in SPLITS}
    counts: list[Counter[str]] = [Counter() for _ in sources]
    for unit, fates in corpus.parts():
        counts[unit.origin].update(unit.record()["counts"])
        characters = unit.column("characters")
        for name, fate in SPLITS.items():
            own = characters[fates == fate]
            held[name][unit.origin] += len(own), int(own.sum())
    settings = [source.setting for source in sources]
    kept = np.sum(list(held.values()), axis=0)
    wanted, whole = wanted_shares(settings), max(int(kept[:, 1].sum()), 1)
    return [
        _about(source)
        | {
            "wanted_share": round(float(wanted[number]), 6),
            "observed_share": round(int(kept[number, 1]) / whole, 6),
            "documents": document_account(
                counts[number], rejected.sources[number], int(kept[number, 0])
            ),
            "characters": character_account(
                counts[number], rejected.sources[number], int(kept[number, 1])
            ),
            "splits": {
                name: {
                    "documents": int(held[name][number, 0]),
                    "characters": int(held[name][number, 1]),
                    "tokens": corpus.tokens[number, name],
                }
                for name in SPLITS
            },
        }
        for number, source in enumerate(sources)
    ]


def _about(source: Source) -> dict[str, Any]:
    """Return where a source comes from and what was wanted of it."""
    setting: MixtureSource = source.setting
    return {
        "format": 1,
        "name": setting.name,
        "kind": source.kind,
        "input": source.label,
        "split": setting.input_split if source.kind == "hub" else None,
        "revision": source.revision,
        "files": _files(source),
        "weight": setting.weight,
        "max_share": setting.max_share,
        "max_characters": setting.max_characters,
        "max_samples": setting.max_samples,
    }


def _files(source: Source) -> list[dict[str, Any]]:
    """Return the files that were read, with their hashes: the hub's own, or xxh3_128."""
    if source.kind == "hub":
        return [
            {
                "name": file.path,
                "bytes": file.size,
                "sha256" if len(file.digest) == 64 else "git_sha1": file.digest,
            }
            for file in source.fetched
        ]
    if source.kind == "files":
        digests = {part.name: part.file_digest or None for part in source.parts()}
        return [{"name": name, "xxh3_128": digest} for name, digest in digests.items()]
    return []
