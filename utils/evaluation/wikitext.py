"""WikiText-2 by the harness protocol: word perplexity, byte perplexity and bits per byte.

The model predicts the detokenised articles; losses are divided by the words and bytes of the
ORIGINAL text, as everybody's published figures are. The bytes it really predicted are some per cent
fewer, so bits per byte is given on both. Word perplexity and bits per byte can be compared between
tokenizers; token perplexity cannot and is there only for the record.

Reference: S. Merity et al., Pointer Sentinel Mixture Models (2016); task `wikitext`, version 2, of
the lm-evaluation-harness, whose rewriting rules are part of what is measured.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

from utils.evaluation.benchmark_files import WIKITEXT, Rows
from utils.evaluation.likelihood import Check, score_rolling
from utils.evaluation.statistics import bootstrap_ratio, exponential, scaled
from utils.model.checkpoints import LoadedModel

_BRACKETS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\(\s*([^\)]*?)\s*\)", r"(\1)"),
        (r"\[\s*([^\]]*?)\s*\]", r"[\1]"),
        (r"{\s*([^}]*?)\s*}", r"{\1}"),
        (r'"\s*([^"]*?)\s*"', r'"\1"'),
        (r"'\s*([^']*?)\s*'", r"'\1'"),
    )
)
_BEFORE_BRACKETS = (
    *((f" @{sign}@ ", sign) for sign in "-,."),
    *((f" {sign} ", f"{sign} ") for sign in ":;.!?,"),
)
_AFTER_BRACKETS = (
    *((" ".join("=" * count), "=" * count) for count in (4, 3, 2)),
    (" \N{DEGREE SIGN} ", "\N{DEGREE SIGN}"),
    (" \n", "\n"),
    ("\n ", "\n"),
    (" N ", " 1 "),
    (" 's", "'s"),
)
_APOSTROPHE_DIGIT = re.compile(r"/' [0-9]/")


def detokenize(text: str) -> str:
    """Return natural spacing for WikiText's; order and oddities are those of the protocol."""
    text = _APOSTROPHE_DIGIT.sub("/'[0-9]/", text.replace("s '", "s'"))
    for old, new in _BEFORE_BRACKETS:
        text = text.replace(old, new)
    for pattern, new in _BRACKETS:
        text = pattern.sub(new, text)
    for old, new in _AFTER_BRACKETS:
        text = text.replace(old, new)
    return text


def articles(raw: str) -> list[str]:
    """Cut wiki.test.raw before each heading of the first level (` = Title = `)."""
    found: list[list[str]] = [[]]
    for line in raw.split("\n"):
        title = line.replace("= = =", "===").replace("= =", "==").strip()
        if title.startswith("= ") and title.endswith(" ="):
            found.append([])
        found[-1].append(line)
    pages = ["\n".join(lines) for lines in found]
    return [page for page in pages[:-1] if page.strip()] + pages[-1:]


def pages_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the articles of the raw file (one row), of pages (hub) or of lines (parquet files).

    Data sets of lines keep blank ones as "", which the raw file has as one blank.
    """
    if "page" in rows[0]:
        return [row["page"] for row in rows]
    if len(rows) == 1:
        return articles(rows[0]["text"])
    return articles("".join(row["text"] or " \n" for row in rows))


def evaluate_wikitext(
    loaded: LoadedModel,
    data: Rows,
    max_tokens: int | None = None,
    seed: int = 42,
    check: Check | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return (result, one record an article); with `max_tokens` only the first whole articles."""
    pages = pages_of(data.rows)
    targets = [detokenize(page) for page in pages]
    if max_tokens is not None:
        pages, targets = _first_articles(loaded, pages, targets, max_tokens)
    scores = score_rolling(loaded, targets, name=WIKITEXT.name, check=check)
    records = [
        {
            "article": page.strip().split("\n")[0].strip(" ="),
            "nats": -total,
            "tokens": tokens,
            "words": len(re.split(r"\s+", page)),
            "bytes": len(page.encode()),
            "scored_bytes": len(target.encode()),
        }
        for page, target, (total, tokens) in zip(pages, targets, scores, strict=True)
    ]
    return _result(records, len(pages_of(data.rows)), seed), records


def _first_articles(
    loaded: LoadedModel, pages: list[str], targets: list[str], max_tokens: int
) -> tuple[list[str], list[str]]:
    """Return at least one article, and more while they have at most `max_tokens` together."""
    used, count = 0, 0
    for target in targets:
        used += len(loaded.encoder.encode(target))
        if count and used > max_tokens:
            break
        count += 1
    return pages[:count], targets[:count]


def _result(records: list[dict[str, Any]], all_articles: int, seed: int) -> dict[str, Any]:
    """Return the measures over all articles, intervals by resampling articles."""
    nats = [record["nats"] for record in records]

    def per(unit: str) -> Any:
        return bootstrap_ratio(nats, [record[unit] for record in records], seed)

    words, size, scored = per("words"), per("bytes"), per("scored_bytes")
    tokens = sum(record["tokens"] for record in records)
    return {
        "word_perplexity": exponential(words).as_dict(),
        "byte_perplexity": exponential(size).as_dict(),
        "bits_per_byte": scaled(size, 1 / math.log(2)).as_dict(),
        "bits_per_scored_byte": scaled(scored, 1 / math.log(2)).as_dict(),
        "token_perplexity": exponential(per("tokens")).value,
        "articles": len(records),
        "tokens": tokens,
        "is_whole_test_set": len(records) == all_articles,
    }
