import math

import pytest

from utils.evaluation.benchmark_files import Rows
from utils.evaluation.likelihood import score_rolling
from utils.evaluation.wikitext import articles, detokenize, evaluate_wikitext, pages_of
from utils.model.checkpoints import load_model

RAW = (
    " \n = First = \n \n It cost 1 @,@ 000 dollars , then . \n \n"
    " = = Part = = \n \n More ( text ) here . \n \n = Second = \n \n End . \n"
)


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        ("a two @-@ part story", "a two-part story"),
        ("1 @,@ 000 and 2 @.@ 5", "1,000 and 2.5"),
        ("Well , yes ; no : maybe ! Why ? So . Then", "Well, yes; no: maybe! Why? So. Then"),
        ("( a ) [ b ] { c }", "(a) [b] {c}"),
        ('the " quoted " word', 'the "quoted" word'),
        ("the dogs ' tails", "the dogs' tails"),
        ("Teddy 's Story", "Teddy's Story"),
        ("20 \N{DEGREE SIGN} C", "20\N{DEGREE SIGN}C"),
        (" = = Part = = \n text \n", " == Part ==\ntext\n"),
        ("size N here", "size 1 here"),
    ],
)
def test_detokenizing_follows_the_protocol(raw, wanted):
    assert detokenize(raw) == wanted


def test_articles_begin_at_headings_of_the_first_level():
    pages = articles(RAW)
    assert [page.split("\n")[0] for page in pages] == [" = First = ", " = Second = "]
    assert " = = Part = = " in pages[0]


def test_lines_pages_and_raw_text_give_the_same_articles():
    wanted = articles(RAW)
    lines = [line if line.strip() else "" for line in RAW.splitlines(keepends=True)]
    assert pages_of([{"text": line} for line in lines]) == wanted
    assert pages_of([{"page": page} for page in wanted]) == wanted
    assert pages_of([{"text": RAW}]) == wanted


def test_the_test_set_has_62_articles(shared_data):
    raw = (shared_data / "eval/wikitext2/wiki.test.raw").read_text(encoding="utf-8")
    pages = articles(raw)
    assert len(pages) == 62
    assert pages[0].split("\n")[0] == " = Robert Boulter = "


def test_losses_are_divided_by_the_words_and_bytes_of_the_original(checkpoint_dir):
    loaded = load_model(checkpoint_dir, device="cpu")
    result, records = evaluate_wikitext(loaded, Rows([{"text": RAW}], "wiki.test.raw"))
    nats = [-score for score, _ in score_rolling(loaded, [detokenize(p) for p in articles(RAW)])]
    assert [record["article"] for record in records] == ["First", "Second"]
    # blank-separated fields, the empty ones at the edges counted, as the harness does
    assert [record["words"] for record in records] == [25, 7]
    assert sum(record["bytes"] for record in records) == len(RAW) - 3  # before and between them
    assert result["word_perplexity"]["value"] == pytest.approx(math.exp(sum(nats) / 32), rel=1e-6)
    size = sum(record["bytes"] for record in records)
    assert result["bits_per_byte"]["value"] == pytest.approx(sum(nats) / math.log(2) / size)
    assert result["bits_per_scored_byte"]["value"] > result["bits_per_byte"]["value"]
    assert result["is_whole_test_set"]


def test_a_token_limit_keeps_whole_articles_and_says_so(checkpoint_dir):
    loaded = load_model(checkpoint_dir, device="cpu")
    result, records = evaluate_wikitext(loaded, Rows([{"text": RAW}], "wiki.test.raw"), 5)
    assert [record["article"] for record in records] == ["First"]
    assert not result["is_whole_test_set"]
