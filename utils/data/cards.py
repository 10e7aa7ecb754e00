"""Writes the cards of a data set and of its tokenizer: stats.json in words."""

from typing import Any

MAX_LABELS = 25
"""Source labels (packages, files of a mixture) listed in the card."""
REASONS = {
    "too_short": "shorter than min_length after cleaning",
    "other_language": "not in the wanted language",
    "exact_duplicate": "the same text (but for white space) as an earlier document",
    "near_duplicate": "word 5-grams nearly those of an earlier document",
    "contaminated": "paragraphs that hold a text the model is measured on",
    "over_mixture_weight": "more than the weight of its source allows",
}
TYPES = {
    "bpe": "SentencePiece BPE with byte fallback",
    "unigram": "SentencePiece unigram with byte fallback",
    "byte_level": "Byte-level BPE",
}
PROFILE_REASON = "a limit of the filter profile"


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for row in rows:
        cells = [f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def data_card(stats: dict[str, Any]) -> str:
    """Return DATA_CARD.md."""
    parts = (
        _sources(stats),
        _account(stats),
        _rules(stats),
        _profile(stats["filter_profile"]),
        _decontamination(stats),
        _splits(stats),
        _tokenizer(stats),
    )
    return "\n\n".join((f"# Data card: {stats['name']}", *parts)) + "\n"


def _sources(stats: dict[str, Any]) -> str:
    rows = [
        (
            source["name"],
            source["input"] + (f" @ {source['revision'][:12]}" if source["revision"] else ""),
            source["documents"],
            source["characters"],
            source["tokens"],
            f"{source['wanted_share']:.1%}",
            f"{source['observed_share']:.1%}",
        )
        for source in stats["sources"]
    ]
    counted = ("documents", "characters", "tokens")
    head = ("source", "input", *counted, "wanted share", "observed share")
    skipped = ", ".join(f"{count} {kind}" for kind, count in stats["files"]["skipped"].items())
    files = f"Local files read: {stats['files']['read']:,}; kinds left out: {skipped or 'none'}."
    own = "What was read of each source, and what became of it: `sources/`."
    labels, rounds = _label_text(stats["labels"]), _rounds(stats)
    parts = ["## Sources", _table(head, rows), own, labels, files, rounds]
    return "\n\n".join(part for part in parts if part)


def _rounds(stats: dict[str, Any]) -> str:
    if len(stats["rounds"]) < 2:
        return ""
    sizes = [f"{one['documents']:,} (files: {one['files']:,})" for one in stats["rounds"]]
    return (
        f"Documents by round: {', then '.join(sizes)}.\nShards, fates and splits of earlier rounds "
        "were kept; the tokenizer is that of the first."
    )


def _rules(stats: dict[str, Any]) -> str:
    settings, threshold = stats["settings"], stats["minhash_threshold"]
    lengths = ", ".join(
        f"{value:,} ({key} %)" for key, value in stats["document_characters"].items()
    )
    language = "any (no filter)"
    if settings["language"]:
        language = (
            f"{settings['language']}, probability at least {settings['language_threshold']} "
            f"({stats['language_unknown']:,} documents too short to tell were kept)"
        )
    addresses = "replaced by stand-ins" if settings["redact_pii"] else "kept"
    near = f"Jaccard of word 5-grams from {threshold}" if threshold else "not looked for"
    return f"""## Rules

- Length: at least {settings["min_length"]:,} characters; documents over {settings["max_length"]:,}
  are split at paragraphs and never dropped. Lengths kept, by percentile: {lengths}.
- Language: {language}.
- Near-duplicates: {near}; of two, the later one in reading order is dropped.
- E-mail and public IP addresses: {addresses}."""


def _profile(profile: dict[str, Any]) -> str:
    rows = [
        (limit["measure"], _number(limit["min"]), _number(limit["max"]), limit["source"])
        for limit in profile["limits"]
    ]
    parts = [f"## Filter profile: {profile['name']}"]
    if rows:
        parts.append(_table(("measure of a document", "least", "most", "source"), rows))
    else:
        parts.append("No document is judged by its looks.")
    if profile["dropped_lines"]:
        phrases = ", ".join(profile["dropped_lines"])
        parts.append(f"Lines with one of these go ({profile['dropped_lines_source']}): {phrases}.")
    return "\n\n".join(parts)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,g}"


def _decontamination(stats: dict[str, Any]) -> str:
    found = stats["decontamination"]
    if found is None:
        return "## Decontamination\n\nSwitched off (`--no_decontaminate`): nothing was looked for."
    head = ("set", "origin", "items", "items found", "paragraphs cut")
    rows = [
        (one["name"], one["origin"], one["items"], one["items_found"], one["paragraphs_cut"])
        for one in found["sets"]
    ]
    benchmarks = (
        ""
        if len(rows) > 1
        else "\nNo benchmark was at hand: pass --eval_data_dir (make: EVAL_DATA_DIR), or go online."
    )
    return f"""## Decontamination

{_table(head, rows)}
{benchmarks}
Where a training document holds at least 80 % of the word 13-grams of an item, its paragraphs with
any of them are cut out (`rejected/contaminated.jsonl`, and of the validation split
`rejected/in_validation.jsonl`); {found["paragraphs_marked"]:,} other paragraphs that share some
with any item stay (`rejected/overlapping.jsonl`)."""


def _splits(stats: dict[str, Any]) -> str:
    rows = [
        (name, split["documents"], split["tokens"], split["text_bytes"], split["bytes_per_token"])
        for name, split in stats["splits"].items()
    ]
    table = _table(("split", "documents", "tokens", "bytes of text", "bytes per token"), rows)
    return f"""## Splits

{table}

A document's split depends on a hash of its own text, after deduplication (train_ratio
{stats["settings"]["train_ratio"]}). Each document ends with
`{stats["tokenizer"]["eos"]["token"]}`."""


def _tokenizer(stats: dict[str, Any]) -> str:
    tokenizer = stats["tokenizer"]
    return f"""## Tokenizer

{TYPES.get(tokenizer["type"], tokenizer["type"])}, {tokenizer["vocab_size"]:,} pieces,
sha256 `{tokenizer["sha256"]}`,
{tokenizer["heldout_bytes_per_token"]} bytes per token on held-out text: see
`tokenizer/TOKENIZER_CARD.md`."""


def _account(stats: dict[str, Any]) -> str:
    documents, characters = stats["documents"], stats["characters"]
    rows = [
        ("in", documents["in"], characters["in"]),
        ("added by splitting long ones", documents["added_by_splitting"], 0),
        ("removed by cleaning", 0, characters["removed_by_cleaning"]),
        *(
            (
                f"dropped: {reason} ({REASONS.get(reason, PROFILE_REASON)})",
                count,
                characters["dropped"][reason],
            )
            for reason, count in documents["dropped"].items()
        ),
        ("bad (rejected/bad_lines.jsonl)", documents["bad"], characters["bad"]),
        ("**kept**", documents["kept"], characters["kept"]),
    ]
    return f"""## What became of it

{_table(("", "documents", "characters"), rows)}

Documents: in + added by splitting = dropped + bad + kept. Characters: in = removed by cleaning +
dropped + bad + kept; bad lines count in bytes. The first hundred documents of each reason lie in
`rejected/`, and every bad line with its file, line and reason."""


def _label_text(labels: dict[str, int]) -> str:
    if len(labels) < 2:
        return ""
    shown = list(labels.items())[:MAX_LABELS]
    text = ", ".join(f"{label} {count:,}" for label, count in shown)
    rest = len(labels) - len(shown)
    return f"Characters by label: {text}{f' and {rest} more' if rest else ''}."


def tokenizer_card(stats: dict[str, Any]) -> str:
    """Return TOKENIZER_CARD.md."""
    tokenizer = stats["tokenizer"]
    origin = (
        "Not trained here: taken over from elsewhere."
        if tokenizer["reused"]
        else f"Trained on {tokenizer['trained_on_characters']:,} characters of the training split "
        f"of {stats['name']}."
    )
    chat = ", ".join(f"`{token}` {number}" for token, number in tokenizer["chat"].items())
    head, rows = ("language", "bytes per token"), tokenizer["languages_bytes_per_token"].items()
    return f"""# Tokenizer card

{TYPES.get(tokenizer["type"], tokenizer["type"])}, {tokenizer["vocab_size"]:,} pieces; decoding
gives back every text. {origin}

- sha256 of {tokenizer["file"]}: `{tokenizer["sha256"]}`
- `{tokenizer["eos"]["token"]}` {tokenizer["eos"]["id"]} ends each document and stands before a text
  (EOS and BOS); `{tokenizer["pad"]["token"]}` {tokenizer["pad"]["id"]} is padding
- chat tokens, which no text gives: {chat}
- **{tokenizer["heldout_bytes_per_token"]} bytes per token** on {tokenizer["heldout_bytes"]:,} bytes
  of held-out text of {stats["name"]}

Articles 1 to 5 of the Universal Declaration of Human Rights, in five languages:

{_table(head, list(rows))}
"""
