"""The data card says in words what stats.json says in numbers."""

import pytest

from utils.data.cards import REASONS, data_card, tokenizer_card

STATS = {
    "name": "toy",
    "documents": {"in": 1203, "added_by_splitting": 7, "kept": 1200, "bad": 4,
                  "dropped": {"too_short": 5, "near_duplicate": 1}},
    "characters": {"in": 999_000, "removed_by_cleaning": 30, "kept": 998_000, "bad": 70,
                   "dropped": {"too_short": 100, "near_duplicate": 800}},
    "document_characters": {"0": 50, "50": 700, "100": 9000},
    "language_unknown": 12,
    "rounds": [{"files": 2, "documents": 800}, {"files": 1, "documents": 400}],
    "files": {"read": 3, "skipped": {".png": 2}},
    "sources": [
        {"name": "a", "input": "org/set (en)", "revision": "0123456789abcdef", "documents": 900,
         "characters": 700_000, "tokens": 180_000, "wanted_share": 0.75, "observed_share": 0.7014},
        {"name": "b", "input": "texts", "revision": None, "documents": 300,
         "characters": 298_000, "tokens": 75_000, "wanted_share": 0.25, "observed_share": 0.2986},
    ],
    "labels": {"a": 700_000, "b": 298_000},
    "splits": {
        "train": {"documents": 1176, "tokens": 250_000, "text_bytes": 980_000, "shards": 1,
                  "bytes_per_token": 3.94},
        "val": {"documents": 24, "tokens": 5000, "text_bytes": 19_000, "shards": 1,
                "bytes_per_token": 3.82},
    },
    "tokenizer": {"type": "unigram", "file": "tokenizer.model", "sha256": "f" * 64,
                  "vocab_size": 8192, "trained_on_characters": 970_000, "reused": False,
                  "eos": {"id": 2, "token": "</s>"}, "pad": {"id": 3, "token": "<pad>"},
                  "chat": {"<|im_start|>": 4, "<|im_end|>": 5},
                  "heldout_bytes_per_token": 3.82, "heldout_bytes": 19_000,
                  "languages_bytes_per_token": {"English": 4.1, "Russian": 2.0312}},
    "decontamination": {
        "sets": [{"name": "BoolQ", "origin": "val.jsonl", "items": 3270, "items_found": 1450,
                  "paragraphs_cut": 2001}],
        "paragraphs_marked": 1234,
    },
    "filter_profile": {
        "name": "web", "dropped_lines": ["cookies"], "dropped_lines_source": "C4",
        "limits": [{"measure": "words", "min": 50.0, "max": 100000.0, "source": "Gopher"},
                   {"measure": "lines_with_end", "min": 0.12, "max": None, "source": "FineWeb"}],
    },
    "minhash_threshold": 0.8,
    "settings": {"min_length": 50, "max_length": 10_000, "language": "en",
                 "language_threshold": 0.7, "train_ratio": 0.98, "sequence_length": 256,
                 "redact_pii": True},
}  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "# Data card: toy",
        "| a | org/set (en) @ 0123456789ab | 900 | 700,000 | 180,000 | 75.0% | 70.1% |",
        "| in | 1,203 | 999,000 |",
        f"| dropped: too_short ({REASONS['too_short']}) | 5 | 100 |",
        "| bad (rejected/bad_lines.jsonl) | 4 | 70 |",
        "| **kept** | 1,200 | 998,000 |",
        "| val | 24 | 5,000 | 19,000 | 3.82 |",
        "Local files read: 3; kinds left out: 2 .png.",
        "Documents by round: 800 (files: 2), then 400 (files: 1).",
        "## Filter profile: web",
        "| words | 50 | 100,000 | Gopher |",
        "| lines_with_end | 0.12 |  | FineWeb |",
        "Lines with one of these go (C4): cookies.",
        "- E-mail and public IP addresses: replaced by stand-ins.",
        "- Language: en, probability at least 0.7 (12 documents too short to tell were kept).",
    ],
)
def test_the_data_card_has_each_number(line):
    assert line in data_card(STATS).splitlines()


def test_filters_that_are_off_are_said_to_be_off():
    stats = STATS | {"minhash_threshold": None, "settings": STATS["settings"] | {"language": None}}
    assert "- Language: any (no filter)." in data_card(stats)
    assert "- Near-duplicates: not looked for" in data_card(stats)


def test_the_tokenizer_card_tells_a_new_one_from_one_used_again():
    assert "Trained on 970,000 characters of the training split of toy." in tokenizer_card(STATS)
    assert "**3.82 bytes per token** on 19,000 bytes" in tokenizer_card(STATS)
    assert "| Russian | 2.0312 |" in tokenizer_card(STATS).splitlines()
    assert "SentencePiece unigram with byte fallback, 8,192 pieces;" in tokenizer_card(STATS)
    assert "- chat tokens, which no text gives: `<|im_start|>` 4, `<|im_end|>` 5" in (
        tokenizer_card(STATS).splitlines()
    )
    used_again = STATS | {"tokenizer": STATS["tokenizer"] | {"reused": True}}
    assert "Not trained here" in tokenizer_card(used_again)
