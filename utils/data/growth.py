"""Files that come later make new shards; what is prepared already stays as it is.

A prepared folder lists its input files by rounds in inputs.json. As long as these files are the
same, files that are new make a further round: documents of earlier rounds keep their fate, their
split and their shards.
"""

import logging
import os
import shutil
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from utils.config.prepare import PrepareConfig, TokenCompression
from utils.data.corpus.sources import Source
from utils.data.identity import is_of
from utils.data.tokens.shards import format_keys
from utils.errors import DataError
from utils.files import MANIFEST, fingerprint, folder_damage, read_json, to_json

INPUTS = "inputs.json"

Files = dict[str, str]
"""Name and hash of the content of some files, in reading order."""

log = logging.getLogger(__name__)


def rounds_of(
    cfg: PrepareConfig, sources: Sequence[Source], folder: Path, identity: dict[str, Any]
) -> list[Files]:
    """Return the input files by rounds: those of the prepared `folder`, and one of new files.

    A single round where nothing is prepared, or not with these settings, or a file has changed;
    none for an input that cannot grow.
    """
    files = input_files(cfg, sources)
    if files is None:
        return []
    earlier, protected = _recorded(folder, identity) if cfg.grow else ([], {})
    rounds, reason = plan_rounds(files, earlier)
    if len(rounds) > len(earlier) > 0 and protected != identity["protected"]:
        rounds, reason = [files], "other benchmarks are at hand than before"
    if reason is not None:
        log.info("%s: everything is prepared anew", reason)
    elif len(rounds) > len(earlier) > 0:
        log.info("%d new file(s): new shards for these, the others stay", len(rounds[-1]))
    return rounds


def input_files(cfg: PrepareConfig, sources: Sequence[Source]) -> Files | None:
    """Return the files of an input that can grow: no stream, no mixture, no limited number."""
    source = sources[0]
    is_limited = bool(cfg.mix_datasets) or source.setting.max_samples is not None
    if is_limited or source.kind != "files":
        return None
    parts = groupby(source.parts(), attrgetter("name"))
    return {name: fingerprint([part.digest for part in own]) for name, own in parts}


def _recorded(folder: Path, identity: dict[str, Any]) -> tuple[list[Files], dict[str, str]]:
    """Return the rounds of a folder prepared with the same settings, and its protected texts."""
    try:
        manifest = read_json(folder / MANIFEST)
        if not is_of(manifest, identity, as_written=False):
            return [], {}
        rounds = [dict(files) for files in read_json(folder / INPUTS)["rounds"]]
        return rounds, manifest["protected"]
    except (DataError, KeyError, TypeError, ValueError, AttributeError):
        return [], {}


def write_rounds(folder: Path, rounds: Sequence[Files]) -> None:
    """Write down the input files, for a later run that finds more of them."""
    content = {"format": 1, "rounds": [list(files.items()) for files in rounds]}
    (folder / INPUTS).write_text(to_json(content), encoding="utf-8")


def plan_rounds(files: Files, recorded: Sequence[Files]) -> tuple[list[Files], str | None]:
    """Return the rounds to prepare, and why they are not those recorded and a new one, if so."""
    for name, content in (item for one in recorded for item in one.items()):
        if name not in files:
            return [files], f"{name} is gone"
        if files[name] != content:
            return [files], f"{name} has changed"
    known = {name for one in recorded for name in one}
    new = {name: content for name, content in files.items() if name not in known}
    return [*recorded, *([new] if new else [])], None


def take_shards(
    folder: Path, rounds: Sequence[Files], compression: TokenCompression, result: Path
) -> dict[str, dict[str, Any]] | None:
    """Put the shards that a folder has of `rounds` into `result`, as links where that is possible.

    Returns their entries in the manifest; None, and nothing is taken, if these are not exactly its
    rounds, they have another form, or any byte has changed.
    """
    if not rounds or folder_damage(folder) is not None:
        return None
    manifest = read_json(folder / MANIFEST)
    if not format_keys(compression).items() <= manifest.items():
        return None
    if [dict(files) for files in read_json(folder / INPUTS)["rounds"]] != list(rounds):
        return None
    splits = manifest["splits"]
    (result / "tokens").mkdir(parents=True, exist_ok=True)
    for entry in splits.values():
        offsets = [str(Path(name).with_suffix(".idx")) for name in entry["token_shards"]]
        for name in (*entry["text_shards"], *entry["token_shards"], *offsets):
            try:
                os.link(folder / name, result / name)
            except OSError:
                shutil.copyfile(folder / name, result / name)
    return splits
