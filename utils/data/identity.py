"""Tells whether a corpus was prepared before: hashes of its input and of the settings that count.

Where it lies, how many processes made it and when are none of these.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.config.filters import load_profile
from utils.config.kinds import Kind
from utils.config.prepare import PrepareConfig
from utils.data.corpus.decontamination import ItemSet
from utils.data.corpus.sources import Source
from utils.data.tokens.shards import format_keys, read_dataset
from utils.errors import DataError
from utils.files import MANIFEST, fingerprint
from utils.tokenizers.foreign import find_tokenizer

PIPELINE = 5
"""Raised when the same input gives another result, so that older folders are not taken for new."""
LATER = {"input_hash", "format", "token_compression"}
"""Keys that may change while what is prepared already stays as it is."""

log = logging.getLogger(__name__)


def identity_of(
    cfg: PrepareConfig, sources: list[Source], protected: Sequence[ItemSet]
) -> dict[str, Any]:
    """Return name and hashes that tell whether the same thing was prepared before."""
    settings = cfg.resolved(Kind.SHAPING)
    settings["filter_profile"] = load_profile(cfg.filter_profile).resolved()
    mixture = [list(source.resolved(Kind.SHAPING).values()) for source in cfg.sources]
    tokenizer = None
    if cfg.reuse_tokenizer and cfg.tokenizer_path is not None:
        tokenizer = find_tokenizer(cfg.tokenizer_path).tokenizer.sha256
    return {
        "kind": "dataset",
        **format_keys(cfg.token_compression),
        "name": cfg.name,
        "settings_hash": fingerprint([PIPELINE, settings, mixture, tokenizer]),
        "input_hash": fingerprint([source.fingerprint() for source in sources]),
        "protected": {one.name: fingerprint(list(one.texts)) for one in protected},
        "sequence_length": cfg.sequence_length,
    }


def is_prepared(folder: Path, identity: dict[str, Any]) -> bool:
    """Return whether `folder` holds this very result, whole.

    Raises:
        DataError: it holds something that is no prepared data set.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not (folder / MANIFEST).is_file():
        raise DataError(f"{folder} holds something else: choose another --output_dir")
    try:
        manifest = read_dataset(folder, hashes=True)
    except DataError as error:
        log.warning("preparing again: %s", error)
        return False
    return is_of(manifest, identity)


def is_of(manifest: dict[str, Any], identity: dict[str, Any], *, as_written: bool = True) -> bool:
    """Return whether a manifest has this identity; else, but for its input and the shards' form.

    Protected texts that are not at hand now may have been at hand when it was made.
    """
    keys = identity.keys() - {"protected"} - (set() if as_written else LATER)
    protected = manifest.get("protected") or {}
    return identity["protected"].items() <= protected.items() and all(
        manifest.get(key) == identity[key] for key in keys
    )


def settings_without_places(cfg: PrepareConfig) -> dict[str, Any]:
    """Return the resolved settings without the place of the result; paths keep their last part.

    So the folder is the same bytes wherever, and on however many cores, it was made.
    """
    settings = cfg.resolved(Kind.SHAPING, Kind.INDIRECT)
    for section in (settings, *settings["mix_datasets"]):
        for key in ("input_path", "tokenizer_path", "eval_data_dir"):
            place = Path(section.get(key) or "")
            if place.is_absolute() or str(place).startswith("~"):
                section[key] = place.name
    return settings
