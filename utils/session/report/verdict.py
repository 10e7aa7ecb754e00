"""Says in plain words what a model of this size and training can do and what not."""

from typing import Any

from utils.session.report.outcome import evaluated_rate
from utils.words import count, number, percent

PRACTICE = (
    "Practice data: the questions and answers, and the preference pairs, were made from the "
    "docstrings of the Python packages on this machine. They teach the form of a conversation and "
    "when to stop; they hold no general knowledge. For a model you want to use, bring your own "
    "(SFT_DATASET=, DPO_DATASET=)."
)
LARGE = 1e9
"""Parameters from which published models begin to answer general questions usefully."""


def verdict(summary: dict[str, Any]) -> list[str]:
    """Return the verdict as sentences; empty when no model was trained."""
    pretrain = summary["pretrain"]
    if not pretrain:
        return []
    return [
        _size(pretrain),
        _language(pretrain),
        *_conversation(summary),
        *_preferences(summary["dpo"]),
    ]


def _size(pretrain: dict[str, Any]) -> str:
    parameters, tokens = count(pretrain["parameters"]), count(pretrain["tokens"])
    text = f"It has {parameters} parameters and has read {tokens} tokens. "
    if pretrain["parameters"] >= LARGE:
        return text + "Models of this size can know things; check every answer."
    return text + (
        "A model this small learns how its training text sounds - its words, its grammar, its "
        "layout. It does not know facts, cannot reason or calculate, and will state wrong things "
        "with confidence. Do not rely on anything it says."
    )


def _language(pretrain: dict[str, Any]) -> str:
    bpb, bigram = pretrain["val_bpb"], pretrain.get("bigram_bpb")
    text = f"On text it has not seen it needs {number(bpb)} bits per byte"
    if bigram is None:
        return f"{text}; there is no baseline to compare with."
    table = f"than a table of neighbouring pairs ({number(bigram)}): it has"
    if bpb < bigram:
        gain = percent(1 - bpb / bigram, 0)
        return f"{text}, {gain} fewer {table} learned more than which token follows which."
    return (
        f"{text}, no better {table} not learned the language yet. "
        "Give it more time or a faster machine."
    )


def _conversation(summary: dict[str, Any]) -> list[str]:
    sft = summary["sft"]
    if not sft:
        return []
    before, after = sft["heldout_loss_before"], sft["heldout_loss_after"]
    stops = last_stop_rate(summary)
    if before is None or after is None:
        return ["Fine-tuning was not measured on held-out conversations."]
    learned = "took" if after < before else "did not take"
    text = f"It {learned} the form of the conversations (held-out loss {before:.2f} to {after:.2f})"
    text += "." if stops is None else f" and ends {percent(stops, 0)} of its answers by itself."
    empty = evaluated_rate(summary["evaluation"], "empty_rate")
    return [text + (f" {percent(empty, 0)} of its answers are empty." if empty else "")]


def _preferences(dpo: dict[str, Any]) -> list[str]:
    if not dpo:
        return []
    before, after = dpo["heldout_accuracy_before"], dpo["heldout_accuracy_after"]
    if before is None or after is None:
        return ["Preference training was not measured on held-out pairs."]
    was, now = percent(before, 0), percent(after, 0)
    if after > before:
        return [f"It prefers the right answer in {now} of held-out pairs, {was} before."]
    return [
        f"Preference training changed nothing for the better ({was} of held-out pairs right "
        f"before, {now} after)."
    ]


def last_stop_rate(summary: dict[str, Any]) -> float | None:
    """Return the share of answers that the session's last model ended by itself, if measured.

    The evaluation measures the model that comes out at the end, SFT its own.
    """
    evaluated = evaluated_rate(summary["evaluation"], "stop_rate")
    return summary["sft"].get("stop_rate") if evaluated is None else evaluated


def next_command(summary: dict[str, Any]) -> str:
    """Return what to run after a session."""
    if summary["status"] != "finished":
        return "correct the error above, then make resume (or make session-debug)"
    if any(stage["name"] == "check" for stage in summary["stages"]):
        return "make session-quick"
    if summary["dpo"] or summary["sft"]:
        return "make serve    (talk to the model; make serve-api for HTTP)"
    if summary["evaluation"]:
        return "make assess-performance"
    return "make session-quick"
