"""Units hold every document once, in order, and their names tell what is in them."""

import gzip
import json

import pytest

from utils.config.prepare import MixtureSource
from utils.data.cleaning.batch import Rules
from utils.data.corpus import work_units as units
from utils.data.corpus.sources import find_source, iter_source
from utils.data.corpus.work_units import iter_units
from utils.reading import file_parts

RULES = Rules(1, 1000, None, "py3langid", 0.5, 0.8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Small files, a long one of lines, a long packed one."""
    for module in (file_parts, units):
        monkeypatch.setattr(module, "PART_BYTES", 300_000)
    for number in range(60):
        (tmp_path / f"small-{number:02d}.txt").write_text(f"text {number} " * (200 * number % 999))
    rows = "\n".join(json.dumps({"text": f"row {n} " + "x" * (n % 900)}) for n in range(1500))
    (tmp_path / "long.jsonl").write_text(rows)
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    (tmp_path / "broken.jsonl").write_text('{"text": "good"}\n{"text": \n')
    return tmp_path


def _units(folder, rules=RULES, **setting):
    source = find_source(MixtureSource(name="mine", input_path=str(folder), **setting))
    return list(iter_units(source, 0, rules, "text", 1))


def _records(folder, **setting):
    source = find_source(MixtureSource(name="mine", input_path=str(folder), **setting))
    return [record for record in iter_source(source) if not hasattr(record, "kind")]


def test_units_hold_every_document_once_and_in_order(folder):
    found = _units(folder)
    assert len(found) > 6
    assert [record for unit in found for record in unit.records()] == _records(folder)


def test_only_what_the_parent_alone_can_read_is_sent(folder):
    batches = [unit for unit in _units(folder) if unit.batch]
    assert batches and all(not unit.parts for unit in batches)
    names = {record.id.split(":")[0] for unit in batches for record in unit.batch}
    assert names == {"packed.jsonl.gz"}


def test_a_limited_source_is_read_by_the_parent(folder):
    found = _units(folder, max_samples=700)
    assert all(unit.batch for unit in found)
    assert [record for unit in found for record in unit.records()] == (
        _records(folder, max_samples=700)
    )


def test_names_are_distinct_and_do_not_depend_on_the_place(folder, tmp_path_factory):
    names = [unit.name for unit in _units(folder)]
    assert len(set(names)) == len(names)
    moved = folder.rename(tmp_path_factory.mktemp("moved") / "again")
    assert [unit.name for unit in _units(moved)] == names


def test_a_changed_byte_or_rule_changes_the_names_it_touches(folder):
    before = [unit.name for unit in _units(folder)]
    path = folder / "long.jsonl"
    path.write_text(path.read_text().replace("row 700 ", "row 7oo "))
    after = [unit.name for unit in _units(folder)]
    assert sum(one != two for one, two in zip(before, after, strict=True)) == 1
    other = Rules(2, 1000, None, "py3langid", 0.5, 0.8)
    assert not set(before) & {unit.name for unit in _units(folder, other)}
