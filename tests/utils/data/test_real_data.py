"""Preparation of real data: nothing is lost without a reason, and the right things are kept."""

import gzip
import json
import re
from collections import Counter

import pytest
from ftfy.fixes import fix_latin_ligatures

from tests.stage01 import prepare
from utils.config.prepare import PrepareConfig
from utils.data.cleaning.text import clean_text
from utils.data.tokens.shards import iter_documents

LINES_A_DOCUMENT = 5
"""Sentences of FLORES that make a document: about 650 characters."""


def _prepare(source, tmp_path, **settings):
    """Prepare a folder; return the statistics and the texts that were kept."""
    defaults = {
        "input_path": str(source), "output_dir": tmp_path / "out", "vocab_size": 2000,
        "decontaminate": False, "num_workers": 2, "keep_cache": False,
    }  # fmt: skip
    folder = prepare(PrepareConfig.build(defaults | settings))
    stats = json.loads((folder / "stats.json").read_text())
    return stats, [row for split in ("train", "val") for row in iter_documents(folder, split)]


def _check_accounts(stats, rows, documents):
    """Compare the accounts with what was written and with a count of our own."""
    found, characters = stats["documents"], stats["characters"]
    assert found["in"] == documents
    assert found["kept"] == len(rows)
    assert characters["kept"] == sum(len(row["text"]) for row in rows)
    dropped = sum(found["dropped"].values())
    assert found["in"] + found["added_by_splitting"] == found["kept"] + dropped + found["bad"]
    assert characters["in"] == (
        characters["kept"]
        + sum(characters["dropped"].values())
        + characters["removed_by_cleaning"]
        + characters["bad"]
    )


def _rows(path):
    with (
        gzip.open(path, "rt", encoding="utf-8")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8") as file
    ):
        return [json.loads(line)["text"] for line in file]


def test_every_web_document_and_page_is_accounted_for(shared_data, tmp_path):
    folder = tmp_path / "web"
    folder.mkdir()
    for path in (shared_data / "dirty/html").glob("*.gz"):
        (folder / path.name).symlink_to(path)
    (folder / "c4.jsonl").symlink_to(shared_data / "dirty/c4/c4_demo.jsonl")
    stats, rows = _prepare(folder, tmp_path, max_length=1_000_000)
    _check_accounts(stats, rows, 300 + 12)
    texts = _rows(shared_data / "dirty/c4/c4_demo.jsonl")
    from_c4 = [row for row in rows if row["id"].startswith("c4.jsonl")]
    dropped = stats["documents"]["dropped"]
    assert len(from_c4) >= 0.99 * len(texts), dropped
    cleaned = {clean_text(text) for text in texts}
    assert all(row["text"] in cleaned for row in from_c4)


@pytest.mark.slow
def test_every_article_and_novel_is_accounted_for_and_english(shared_data, tmp_path):
    folder = tmp_path / "books"
    folder.mkdir()
    for name in ("wikipedia", "novels", "tinyshakespeare"):
        (folder / name).mkdir()
        for path in (shared_data / "pretrain" / name).iterdir():
            (folder / name / path.name).symlink_to(path)
    articles = sum(len(_rows(path)) for path in (folder / "wikipedia").iterdir())
    assert articles == 3738
    stats, rows = _prepare(folder, tmp_path, max_length=1_000_000, use_minhash=False)
    # A text file of more than a million characters is several documents.
    parts = stats["documents"]["in"] - articles
    assert parts >= 56
    _check_accounts(stats, rows, articles + parts)
    assert stats["documents"]["bad"] == 0
    foreign = stats["documents"]["dropped"].get("language", 0)
    assert foreign <= 0.01 * stats["documents"]["in"], stats["documents"]
    assert stats["characters"]["kept"] >= 0.99 * (
        stats["characters"]["in"] - stats["characters"]["removed_by_cleaning"]
    )


def _flores(shared_data, folder, lines):
    """Write a file of documents for each language; return how many each has."""
    folder.mkdir()
    counts = {}
    for path in sorted((shared_data / "multilingual/flores200").iterdir()):
        sentences = path.read_text(encoding="utf-8").splitlines()
        texts = ["\n".join(sentences[at : at + lines]) for at in range(0, len(sentences), lines)]
        with (folder / f"{path.stem}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
        counts[path.stem] = len(texts)
    assert len(counts) == 55
    return counts


def test_english_documents_stay_and_those_of_54_languages_go(shared_data, tmp_path):
    counts = _flores(shared_data, tmp_path / "flores", LINES_A_DOCUMENT)
    stats, rows = _prepare(tmp_path / "flores", tmp_path, language="en", min_length=1,
                           use_minhash=False)  # fmt: skip
    _check_accounts(stats, rows, sum(counts.values()))
    kept = Counter(row["id"].partition(".jsonl")[0] for row in rows)
    english = kept.pop("eng_Latn")
    assert english >= 0.99 * counts.pop("eng_Latn")
    assert sum(kept.values()) <= 0.005 * sum(counts.values()), kept


@pytest.mark.slow
def test_single_sentences_that_can_be_told_are_told(shared_data, tmp_path):
    """A sentence of fewer than 40 letters is kept on purpose; 0.6 % of these are that short."""
    counts = _flores(shared_data, tmp_path / "flores", 1)
    settings = {"language": "en", "min_length": 1, "use_minhash": False}
    stats, rows = _prepare(tmp_path / "flores", tmp_path, **settings)
    kept = Counter(row["id"].partition(".jsonl")[0] for row in rows)
    english, unknown = kept.pop("eng_Latn"), stats["language_unknown"]
    assert english >= 0.98 * counts.pop("eng_Latn")
    assert unknown <= 0.007 * sum(counts.values())
    assert sum(kept.values()) - unknown <= 0.0005 * sum(counts.values())


@pytest.mark.parametrize("name", ["in-the-wild", "synthetic", "negative"])
def test_cases_of_ftfy_come_out_of_preparation_as_its_authors_want(shared_data, tmp_path, name):
    cases = json.loads((shared_data / "dirty/ftfy" / f"{name}.json").read_text("utf-8"))
    cases = [case for case in cases if case["expect"] == "pass"]
    source = tmp_path / "cases.jsonl"
    padding = "".join(json.dumps({"id": f"more {n}", "text": f"{n} more text " * 40}) + "\n"
                      for n in range(60))  # fmt: skip
    source.write_text(padding + "".join(
        json.dumps({"id": str(number), "text": case["original"]}) + "\n"
        for number, case in enumerate(cases)
    ))  # fmt: skip
    stats, rows = _prepare(source, tmp_path, language=None, min_length=1, use_minhash=False,
                           vocab_size=600)  # fmt: skip
    _check_accounts(stats, rows, len(cases) + 60)
    found = {row["id"]: row["text"] for row in rows if not row["id"].startswith("more")}
    wanted = {str(n): case.get("fixed-encoding", case["fixed"]) for n, case in enumerate(cases)}
    wanted = {number: _ours(text) for number, text in wanted.items()}
    assert {n: text for n, text in found.items() if text != wanted[n]} == {}
    assert len(found) == len(set(wanted.values())) > 20


def _ours(text):
    """Return what ftfy's authors want as we want it: plain blanks and letters, no control signs."""
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", text.replace("\u00a0", " ")).rstrip()
    return fix_latin_ligatures(text)
