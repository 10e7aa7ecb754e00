"""The evaluation as text: report.md with every answer, and a few lines for the log.

Each number stands beside its interval, its sample count and what it does not say.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from utils import words
from utils.evaluation.answer_form import PARTS as QUALITY_PARTS
from utils.words import TOO_LARGE, percent

Measures = Mapping[str, Any]
ORDER = ("heldout", "wikitext", "lambada", "boolq", "conversations", "preferences", "smoke")
MEANINGS = {
    "heldout": "How many bits the model needs for a byte of text from the held-out part of its own "
    "corpus: lower is better. It compares models on this corpus only. The unigram and bigram "
    "figures are what counting tokens and pairs of tokens reaches on the same text.",
    "wikitext": "Harness protocol on detokenised articles, divided by the words and bytes of the "
    "original text. Word perplexity and bits per byte can be compared between tokenizers; token "
    "perplexity cannot and stands here for the record only.",
    "lambada": "Share of passages whose last word is predicted exactly, and the perplexity of that "
    "word. Guessing scores 0.",
    "boolq": "Yes or no about a passage, zero-shot. Always giving the commoner answer scores the "
    "majority class without reading anything; models of this size are not expected to beat it.",
    "conversations": "Loss is the mean negative log-likelihood (nats) of an answer token on "
    "held-out conversations; stop rate is the share of greedy answers that end by themselves "
    "within 128 tokens (or half of a context below 256). Neither says that an answer is right.",
    "preferences": "Share of held-out pairs whose chosen answer is likelier than the rejected one "
    "(sums of log-probabilities, no reference model; chance is 50%). It says which of two given "
    "answers the model prefers, not that it would write good ones.",
    "smoke": "Greedy answers to short prompts. The quality score looks at form only: it is no "
    "measure of truth, and fluent nonsense can score high.",
}


def number(value: float | None, decimals: int = 3) -> str:
    """Return a measured number in words; a result holds None for one beyond all floats."""
    return TOO_LARGE if value is None else words.number(value, decimals)


def with_interval(estimate: Measures, show: Callable[[Any], str] = number) -> str:
    """Return `value (low to high)`, the 95% interval."""
    return f"{show(estimate['value'])} ({show(estimate['low'])} to {show(estimate['high'])})"


def _heldout(measures: Measures) -> list[tuple[str, str, str]]:
    what = "all of it" if measures["is_whole_split"] else "the first documents"
    documents = f"{measures['documents']:,} documents, {measures['tokens']:,} tokens ({what})"
    return [
        ("bits per byte", with_interval(measures["bits_per_byte"]), documents),
        ("bits per byte, token unigram", number(measures["unigram_bits_per_byte"]), "same text"),
        ("bits per byte, token bigram", number(measures["bigram_bits_per_byte"]), "same text"),
    ]


def _wikitext(measures: Measures) -> list[tuple[str, str, str]]:
    what = f"{measures['articles']} articles"
    if not measures["is_whole_test_set"]:
        what += ", a part: not comparable with published figures"
    names = {
        "word_perplexity": "word perplexity",
        "byte_perplexity": "byte perplexity",
        "bits_per_byte": "bits per byte (original bytes)",
        "bits_per_scored_byte": "bits per byte (scored bytes)",
    }
    rows = [(label, with_interval(measures[key]), what) for key, label in names.items()]
    token = (number(measures["token_perplexity"]), "not comparable between tokenizers")
    return [*rows, ("token perplexity", *token)]


def _lambada(measures: Measures) -> list[tuple[str, str, str]]:
    passages = f"{measures['accuracy']['count']:,} passages"
    return [
        ("accuracy", with_interval(measures["accuracy"], percent), passages),
        ("perplexity of the last word", with_interval(measures["perplexity"]), passages),
    ]


def _boolq(measures: Measures) -> list[tuple[str, str, str]]:
    questions = f"{measures['accuracy']['count']:,} questions"
    return [
        ("accuracy", with_interval(measures["accuracy"], percent), questions),
        ("majority class", percent(measures["majority_class"]), "the same questions"),
        ("verdict", measures["skill"], f"answered yes: {percent(measures['answered_yes'])}"),
    ]


def _conversations(measures: Measures) -> list[tuple[str, str, str]]:
    loss, rate = measures["answer_loss"], measures["stop_rate"]
    of = f"of {measures['rows']:,} conversations"
    return [
        ("answer loss (nats a token)", with_interval(loss), f"{loss['count']:,} {of}"),
        ("stop rate", with_interval(rate, percent), f"{rate['count']:,} {of}"),
        ("empty answers", with_interval(measures["empty_rate"], percent), "the same"),
    ]


def _preferences(measures: Measures) -> list[tuple[str, str, str]]:
    count = f"{measures['accuracy']['count']:,} of {measures['rows']:,} pairs"
    return [
        ("accuracy", with_interval(measures["accuracy"], percent), count),
        ("verdict", measures["skill"], "chance is 50%"),
    ]


def _smoke(measures: Measures) -> list[tuple[str, str, str]]:
    rows = [
        ("response quality (0-1)", number(measures["quality"], 2), f"{measures['prompts']} prompts")
    ]
    for name, entry in measures["categories"].items():
        label = name.replace("_", " ")
        rows.append((f"- {label}", number(entry["quality"], 2), f"{entry['prompts']} prompts"))
    return rows


_TABLES = {
    "heldout": _heldout,
    "wikitext": _wikitext,
    "lambada": _lambada,
    "boolq": _boolq,
    "conversations": _conversations,
    "preferences": _preferences,
    "smoke": _smoke,
}


def rows_of(name: str, entry: Measures) -> list[tuple[str, str, str]]:
    """Return (measure, value, samples) of one part, or its status and reason."""
    if entry["status"] != "ok":
        return [("", entry["status"], entry["reason"])]
    return _TABLES[name](entry["measures"])


def summary_lines(result: Measures) -> list[str]:
    """Return one line a part: its first measure, or why there is none."""
    lines = []
    for name in ORDER:
        entry = result["results"].get(name)
        if entry is not None:
            measure, value, samples = rows_of(name, entry)[0]
            text = ": ".join(part for part in (measure, value) if part)
            lines.append(f"{entry['title']}: {text} ({samples})")
    return lines


def render(result: Measures, smoke: Sequence[Measures]) -> str:
    """Return report.md."""
    parts = [_head(result), _overview(result)]
    for name in ORDER:
        entry = result["results"].get(name)
        if entry is not None:
            parts.append(_section(name, entry))
    if smoke:
        parts.append(_answers(smoke, result["model"]["template"] is not None))
    return "\n\n".join(parts) + "\n"


def _head(result: Measures) -> str:
    model, machine = result["model"], result["environment"]
    kind = f"chat, template {model['template']}" if model["template"] else "base, no template"
    return "\n".join(
        [
            f"# Evaluation of {model['name']}",
            "",
            f"- Model: `{model['folder']}`, {model['parameters']:,} parameters, vocabulary "
            f"{model['vocab_size']:,}, context {model['context_length']:,}, {kind}",
            f"- Run: {result['started']}, {result['seconds']:.0f} s on {machine['device']} "
            f"({machine['threads']} threads), {machine['dtype']}, torch {machine['torch']}, "
            f"transformers {machine['transformers']}",
            f"- Command: `{' '.join(machine['command'])}`",
        ]
    )


def _overview(result: Measures) -> str:
    lines = ["## Results", "", "Brackets hold 95% intervals.", ""]
    lines += ["| part | measure | value | samples |", "|---|---|---|---|"]
    for name in ORDER:
        entry = result["results"].get(name)
        if entry is not None:
            measure, value, samples = rows_of(name, entry)[0]
            lines.append(_row(entry["title"], measure, value, samples))
    return "\n".join(lines)


def _section(name: str, entry: Measures) -> str:
    lines = [f"## {entry['title']}", "", MEANINGS[name], ""]
    if entry["status"] != "ok":
        return "\n".join([*lines, f"**{entry['status']}**: {entry['reason']}"])
    lines += [f"Data: `{entry['source']}`, {entry['seconds']:.1f} s.", ""]
    lines += ["| measure | value | samples |", "|---|---|---|"]
    lines += [_row(*row) for row in rows_of(name, entry)]
    if name == "smoke":
        lines += ["", "The score is the weighted mean of the parts that apply to a prompt:", ""]
        lines += [
            f"- {key.replace('_', ' ')} ({weight:.2f}): {what}"
            for key, (weight, what) in QUALITY_PARTS.items()
        ]
    return "\n".join(lines)


def _row(*cells: str) -> str:
    """Return a table row; a bar or line break in a cell would break the table."""
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"


def _answers(smoke: Sequence[Measures], is_chat: bool) -> str:
    how = "answers" if is_chat else "continuations of the given text"
    lines = ["## All responses", "", f"Greedy {how}, whole and unedited."]
    category = None
    for record in smoke:
        if record["category"] != category:
            category = record["category"]
            lines += ["", f"### {category.replace('_', ' ').capitalize()}"]
        for message in record["history"]:
            lines += ["", f"{message['role'].capitalize()}:", "", *_fenced(message["content"])]
        lines += ["", "Prompt:", "", *_fenced(record["prompt"])]
        if record["status"] != "ok":
            lines += ["", f"**{record['status']}**"]
            continue
        scores = record["quality"]
        parts = ", ".join(
            f"{key.replace('_', ' ')} {number(value, 2)}"
            for key, value in scores.items()
            if key != "score"
        )
        ended = "ended by itself" if record["ended"] else "cut at the limit"
        lines += ["", f"Response ({record['tokens']} tokens, {ended}):", ""]
        lines += _fenced(record["response"])
        lines += ["", f"Quality {number(scores['score'], 2)}" + (f" ({parts})" if parts else "")]
    return "\n".join(lines)


def _fenced(text: str) -> list[str]:
    """Return a code block that the text cannot close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}text", text, fence]
