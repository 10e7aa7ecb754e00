"""What is cut and marked is what a plain search with tuples of words finds."""

import json
import random
import re

import numpy as np
import pytest

from tests.stage01 import prepare
from utils.config.prepare import PrepareConfig
from utils.data.corpus import work_units as units
from utils.data.corpus.decontamination import (
    CUT_SHARE,
    Findings,
    ItemSet,
    Match,
    Protected,
    paragraphs,
    screen,
)
from utils.data.tokens.shards import iter_documents
from utils.data.work.cache import ResultCache
from utils.reading import file_parts

CHANCE = random.Random(5)
WORDS = [f"w{number}" for number in range(60)]


def grams(text):
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[at : at + 13]) for at in range(len(words) - 12)}


def search(items, documents):
    """The oracle: for each document the paragraphs to cut and to mark."""
    known = [grams(item) for item in items]
    everything = set().union(*known)
    found = []
    for parts in documents:
        whole = grams("\n\n".join(parts))
        held = [item for item in known if item and len(whole & item) / len(item) >= CUT_SHARE]
        cut = [n for n, part in enumerate(parts) if any(grams(part) & item for item in held)]
        marked = [n for n, part in enumerate(parts) if grams(part) & everything and n not in cut]
        found.append((cut, marked) if whole & everything else None)
    return found


def random_case():
    items = [" ".join(CHANCE.choices(WORDS, k=CHANCE.randrange(5, 60))) for _ in range(20)]
    documents = [[paragraph(items) for _ in range(CHANCE.randrange(1, 5))] for _ in range(30)]
    return items, documents


def paragraph(items):
    words = CHANCE.choices(WORDS, k=CHANCE.randrange(0, 40))
    if CHANCE.random() < 0.7:
        item = CHANCE.choice(items).split()
        length = CHANCE.randrange(1, len(item) + 1)
        start = CHANCE.randrange(len(item) - length + 1)
        words += item[start : start + length] + CHANCE.choices(WORDS, k=CHANCE.randrange(5))
    return ", ".join(words).upper() or "none"


@pytest.mark.parametrize("number", range(30))
def test_paragraphs_are_those_of_a_plain_search(number, tmp_path):
    items, documents = random_case()
    store = ResultCache(tmp_path)
    Protected.of(items).save(store, "hashes")
    found = screen(["\n\n".join(d) for d in documents], Protected.load(store, "hashes"))
    for document, one, expected in zip(documents, found, search(items, documents), strict=True):
        assert (one is None) == (expected is None)
        if one is None:
            continue
        assert [match.paragraph for match in one.cut] == expected[0]
        assert [match.paragraph for match in one.marked] == expected[1]
        left = [part for n, part in enumerate(document) if n not in expected[0]]
        assert one.text == "\n\n".join(left)


def test_exactly_four_fifths_are_cut_and_one_gram_less_is_marked():
    item = [f"i{number}" for number in range(22)]  # 10 grams
    protected = Protected.of([" ".join(item)])
    exact, less = " ".join(item[:20]), " ".join(item[:19])
    (one,) = screen([exact], protected)
    assert one.cut == [Match(0, exact, 0, 0.8)] and one.text == ""
    (one,) = screen([less], protected)
    assert one.marked == [Match(0, less, None, 1.0)] and one.text == less


def test_an_item_over_two_paragraphs_is_cut_with_both():
    item = [f"i{number}" for number in range(60)]
    text = f"Title\n{' '.join(item[:30])}\n{' '.join(item[30:])}\nThe end of it." + " word" * 50
    (one,) = screen([text], Protected.of([" ".join(item)]))
    assert [match.paragraph for match in one.cut] == [1, 2]
    assert one.text == "Title\nThe end of it." + " word" * 50


def test_wrapped_lines_make_one_paragraph_and_long_lines_one_each():
    long = "word " * 50
    text = f"a\nb\n\n\n{long}\nc\n\nd\n"
    parts = paragraphs(text)
    assert parts == [("a\nb", "\n\n\n"), (long, "\n"), ("c", "\n\n"), ("d", "\n")]
    assert "".join(part + border for part, border in parts) == text


def test_short_texts_and_empty_sets_match_nothing():
    twelve = " ".join(WORDS[:12])
    assert screen([twelve, "", twelve + " more"], Protected.of([twelve, ""])) == [None] * 3
    assert screen([twelve * 3], Protected.of([])) == [None]
    assert screen([], Protected.of(["a " * 30])) == []


def test_paragraphs_are_cut_out_of_their_documents():
    item = " ".join(WORDS[:30])
    half = " ".join(WORDS[:20])
    texts = ["Fine.\n\n" + item + "\n\nAlso fine.", "nothing here", item, "First.\n\n" + half]
    first, second, third, fourth = screen(texts, Protected.of([item]))
    assert first.text == "Fine.\n\nAlso fine." and second is None and third.text == ""
    assert [match.paragraph for match in first.cut] == [1]
    assert fourth.text == texts[3] and fourth.cut == []
    assert fourth.marked[0].text == half


def test_findings_name_the_set_and_the_item():
    findings = Findings([ItemSet("A", "a", ["x", "y"]), ItemSet("B", "b", ["z"])])
    (record,) = findings.records("doc", [Match(3, "some text", 2, 0.9)])
    assert record["detail"] == "90% of the 13-grams of item 1 of B" and record["id"] == "doc"
    findings.records("doc", [Match(3, "some text", None, 0.5)])
    found = findings.as_dict()
    assert [one["paragraphs_cut"] for one in found["sets"]] == [0, 1]
    assert [one["items_found"] for one in found["sets"]] == [0, 1]
    assert found["paragraphs_marked"] == 1


def test_preparation_cuts_out_what_is_protected_and_accounts_for_it(tmp_path, texts):
    secret = " ".join(f"secret{number}" for number in range(40))
    rows = [{"text": text} for text in texts]
    rows += [{"text": f"Kept before {n}.\n\n{secret}\n\nKept after {n}, {texts[n][:80]}"}
             for n in range(20)]  # fmt: skip
    rows.append({"text": secret + " end"})
    source = tmp_path / "docs.jsonl"
    source.write_text("\n".join(json.dumps(row) for row in rows))
    cfg = PrepareConfig.build({
        "input_path": str(source), "output_dir": tmp_path / "out", "vocab_size": 600,
        "language": None, "num_workers": 1, "train_ratio": 0.9, "use_minhash": False,
    })  # fmt: skip
    folder = prepare(cfg, lambda: [ItemSet("Secrets", "a file", [secret])])
    written = "".join(row["text"] for row in iter_documents(folder, "train"))
    assert "secret5" not in written and "Kept before" in written and "Kept after" in written
    stats = json.loads((folder / "stats.json").read_text())
    found = {one["name"]: one for one in stats["decontamination"]["sets"]}
    assert found["Secrets"]["items_found"] == 1
    in_val = sum(secret in row["text"] for row in iter_documents(folder, "val"))
    assert found["Secrets"]["paragraphs_cut"] + in_val == 21
    assert stats["documents"]["dropped"]["contaminated"] in (0, 1)
    assert "| Secrets | a file | 1 | 1 |" in (folder / "DATA_CARD.md").read_text()
    records = (folder / "rejected/contaminated.jsonl").read_text().splitlines()
    details = [json.loads(record)["detail"] for record in records]
    assert set(details) == {"100% of the 13-grams of item 1 of Secrets"}
    plain = prepare(cfg.model_copy(update={"decontaminate": False, "output_dir": tmp_path / "no"}))
    assert "secret5" in "".join(row["text"] for row in iter_documents(plain, "train"))
    assert "Switched off" in (plain / "DATA_CARD.md").read_text()


def test_result_does_not_depend_on_the_number_of_processes(tmp_path, texts, monkeypatch):
    monkeypatch.setattr(units, "PART_BYTES", 20_000)  # several units for each process
    monkeypatch.setattr(file_parts, "PART_BYTES", 20_000)
    secret = texts[0]
    source = tmp_path / "docs.jsonl"
    rows = [{"text": f"{text}\n\n{secret}"} for text in texts] * 3
    rows = [{"text": f"{row['text']}\n\nnumber {n}"} for n, row in enumerate(rows)]
    source.write_text("\n".join(json.dumps(row) for row in rows))
    contents = []
    for count in (1, 2):
        cfg = PrepareConfig.build({
            "input_path": str(source), "output_dir": tmp_path / f"out{count}", "vocab_size": 600,
            "language": None, "num_workers": count, "train_ratio": 0.9, "use_minhash": False,
        })  # fmt: skip
        folder = prepare(cfg, lambda: [ItemSet("Secrets", "a file", [secret])])
        contents.append([(path.name, path.read_bytes()) for path in sorted(folder.rglob("*"))
                         if path.is_file() and path.name != "settings.json"])  # fmt: skip
    assert contents[0] == contents[1]


def test_hashes_are_sorted_and_distinct_within_an_item():
    protected = Protected.of(["a b c " * 20])
    assert len(protected.grams) == 3 == len(np.unique(protected.grams))


def test_paragraphs_and_their_borders_are_the_whole_text():
    for _ in range(300):
        text = "".join(CHANCE.choices(["\n", "a b", "c" * 250], k=CHANCE.randrange(12)))
        assert "".join(part + border for part, border in paragraphs(text)) == text


def test_a_set_that_can_no_longer_be_had_changes_nothing_and_a_new_one_prepares_again(
    tmp_path, texts, caplog
):
    source = tmp_path / "docs.jsonl"
    source.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    cfg = PrepareConfig.build({
        "input_path": str(source), "output_dir": tmp_path / "out", "vocab_size": 600,
        "language": None, "num_workers": 1, "train_ratio": 0.9,
    })  # fmt: skip
    first, second = (ItemSet(name, "a file", [f"{name} " * 20]) for name in ("One", "Two"))

    def manifest(*sets):
        return (prepare(cfg, lambda: sets) / "manifest.json").stat().st_mtime_ns

    made = manifest(first)
    assert made == manifest(first) == manifest()
    again = manifest(first, second)
    assert again != made
    assert again == manifest(second)
    changed = ItemSet("Two", "a file", ["another text " * 20])
    assert manifest(changed) != again
