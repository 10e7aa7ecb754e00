"""Practice sets for SFT and DPO, made from the docstrings on this machine; no network is used.

    python -m utils.data.builtin.practice_sets [--output_dir data] [--num_sft 12000] [--num_dpo
    6000]

Writes sft_dataset.json, dpo_dataset.json, a held-out file for each, and samples_card.json. Held-out
rows are about functions (by a hash of the qualified name) that no training row mentions, and no
answer is in both. Things whose name shares a word with its summary come first, and a pair's wrong
answer shares none with the name it is shown for: with the name to go by, a model of a few million
parameters can learn to prefer right answers for functions it was not trained on. That makes
these sets practice for the method, and no measure of what a chat model knows.
Files that this command did not write are never overwritten.
"""

import json
import logging
import random
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from utils.config.prepare import SampleConfig
from utils.data.builtin.docstrings import DocRecord
from utils.data.builtin.pydocs import pydocs_records
from utils.data.builtin.questions import (
    Conversation,
    Subject,
    are_as_long,
    find_subjects,
    make_conversation,
    make_pair,
    stems,
)
from utils.errors import DataError
from utils.files import read_json, sha256_bytes, sha256_file, write_atomic, write_json
from utils.stage import run_stage

CARD = "samples_card.json"
ABOUT = (
    "Practice data made by `make create-sample-datasets` from the docstrings of the Python "
    "standard library and the installed packages. Answers are first paragraphs of docstrings; a "
    "DPO pair has the right answer (chosen) and one about another function (rejected), of "
    "similar length; a sixth of them answer the later question of a dialogue. "
    "Held-out rows are about functions that no training row is about. It exercises the pipeline; "
    "it does not make a chat model. The texts keep the licences of the packages they come from."
)
MAX_SOURCE_SHARE = 0.25
"""Largest share of the training conversations from one distribution."""
MAX_HELDOUT_SHARE = 0.25
HELDOUT_SUBJECTS_PER_ROW = 3
"""Held-out functions set aside for each held-out row, so that every pair finds its wrong answer."""

Rows = list[dict[str, object]]
log = logging.getLogger("utils.data.builtin.practice_sets")


def main(cfg: SampleConfig) -> None:
    """Write the four files and the card, or leave what is the same as it is."""
    datasets = make_datasets(cfg, pydocs_records())
    contents = {name: _lines(rows) for name, rows in datasets.items()}
    write_datasets(cfg.output_dir, contents, {name: len(rows) for name, rows in datasets.items()})


def make_datasets(cfg: SampleConfig, records: Iterable[DocRecord]) -> dict[str, Rows]:
    """Return the rows of each file by its name; a pure function of settings and records.

    Raises:
        DataError: too few clean docstrings for any pair.
    """
    subjects = list(find_subjects(records, cfg.max_answer_characters))
    subjects.sort(key=lambda subject: sha256_bytes(subject.name.encode()))
    num_heldout = min(
        cfg.num_heldout * HELDOUT_SUBJECTS_PER_ROW, int(len(subjects) * MAX_HELDOUT_SHARE)
    )
    splits = {"_heldout": subjects[:num_heldout], "": subjects[num_heldout:]}
    sizes = {"_heldout": (cfg.num_heldout, cfg.num_heldout), "": (cfg.num_sft, cfg.num_dpo)}
    datasets: dict[str, Rows] = {}
    for suffix, members in splits.items():
        num_sft, num_dpo = sizes[suffix]
        rng = random.Random(f"{cfg.seed}{suffix}")
        datasets[f"sft_dataset{suffix}.json"] = make_sft_rows(members, num_sft, rng)
        datasets[f"dpo_dataset{suffix}.json"] = make_dpo_rows(members, num_dpo, rng)
    empty = [name for name, rows in datasets.items() if not rows]
    if empty:
        raise DataError(
            f"{len(subjects)} clean docstrings are too few for {', '.join(empty)}: run `make "
            "install`, or use conversations of your own with --dataset_path"
        )
    return datasets


def make_sft_rows(subjects: list[Subject], count: int, rng: random.Random) -> Rows:
    """Return at most `count` conversations, of inferable subjects first, in a shuffled order."""
    limit = max(1, int(count * MAX_SOURCE_SHARE))
    taken: Counter[str] = Counter()
    chosen: list[Subject] = []
    for subject in sorted(subjects, key=lambda subject: not subject.is_inferable):
        if len(chosen) < count and taken[subject.source] < limit:
            taken[subject.source] += 1
            chosen.append(subject)
    rows = [_sft_row(make_conversation(subject, rng)) for subject in chosen]
    rng.shuffle(rows)
    return rows


def _sft_row(messages: Conversation) -> dict[str, object]:
    if len(messages) == 2:
        return {"prompt": messages[0]["content"], "response": messages[1]["content"]}
    return {"messages": messages}


def make_dpo_rows(subjects: list[Subject], count: int, rng: random.Random) -> Rows:
    """Return at most `count` pairs; no function is rejected twice, so that none is bad as such."""
    by_length = sorted(
        (subject for subject in subjects if subject.is_inferable),
        key=lambda subject: (len(subject.summary), subject.name),
    )
    free = [True] * len(by_length)
    rows: Rows = []
    for at in rng.sample(range(len(by_length)), k=len(by_length)):
        if len(rows) == count:
            break
        other = _find_rejected(by_length, at, free, rng)
        if other is not None:
            free[other] = False
            rows.append(make_pair(by_length[at], by_length[other], rng))
    return rows


def _find_rejected(
    by_length: list[Subject], at: int, free: list[bool], rng: random.Random
) -> int | None:
    """Return the place of a summary of another module that cannot pass for the right one."""
    right = by_length[at]
    # Neighbours in length; a random one of them, nearest lengths are not preferred.
    near = [place for place in range(max(0, at - 40), min(len(by_length), at + 41)) if free[place]]
    for place in rng.sample(near, k=len(near)):
        wrong = by_length[place]
        if (
            place != at
            and wrong.module != right.module
            and are_as_long(right.summary, wrong.summary)
            and not right.name_stems & stems(wrong.summary)
        ):
            return place
    return None


def _lines(rows: Rows) -> bytes:
    """Return a JSON list with one row a line."""
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    return f"[\n{lines}\n]\n".encode()


def write_datasets(folder: Path, contents: dict[str, bytes], rows: dict[str, int]) -> None:
    """Write the files and their card; files that are there already must be this command's.

    Raises:
        DataError: a file was made or changed by someone else; nothing is written then.
    """
    known = _known_hashes(folder / CARD)
    changed = {
        name: data
        for name, data in contents.items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != data
    }
    for name in changed:
        path = folder / name
        if path.is_file() and sha256_file(path) not in known.get(name, ()):
            raise DataError(
                f"{path} was not made by this command, or changed since: move it away, or choose "
                "another --output_dir"
            )
    hashes = {name: sha256_bytes(data) for name, data in contents.items()}
    card = {"about": ABOUT, "rows": rows}
    if changed:
        # Old and new hashes first: whatever a crash leaves behind is known to be this command's.
        both = {name: [*known.get(name, ()), hashes[name]] for name in contents}
        write_json(folder / CARD, {**card, "sha256": both})
    for name, data in changed.items():
        write_atomic(folder / name, data)
    write_json(folder / CARD, {**card, "sha256": {name: [hashes[name]] for name in contents}})
    for name, count in rows.items():
        log.info("%s: %d rows%s", folder / name, count, "" if name in changed else " (unchanged)")


def _known_hashes(card: Path) -> dict[str, list[str]]:
    return read_json(card)["sha256"] if card.is_file() else {}


if __name__ == "__main__":
    sys.exit(run_stage(main, SampleConfig))
