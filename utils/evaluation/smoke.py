"""Smoke prompts: short greedy answers in eight categories with a 0-1 response quality score.

The score (`utils.evaluation.answer_form`) looks at the form of an answer and never knows whether it
is true.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from utils.checkout import ROOT
from utils.errors import DataError
from utils.evaluation.answer_form import SmokePrompt, quality
from utils.evaluation.likelihood import Check
from utils.files import read_json
from utils.log import progress
from utils.model.checkpoints import LoadedModel

if TYPE_CHECKING:
    from utils.generation.engine import Generated
    from utils.generation.sampling import Sampling

PROMPTS_FILE = ROOT / "evaluation" / "smoke_prompts.json"
PROMPTS_AT_ONCE = 8


def read_prompts(path: Path | None) -> list[SmokePrompt]:
    """Return the prompts of a file {category: [prompt, ...]} or [prompt, ...].

    A prompt is text, or an object with the fields of `SmokePrompt`; the shipped file is read when
    `path` is None.

    Raises:
        DataError: the file has another layout (the category and the number are named).
    """
    path = path or PROMPTS_FILE
    content = read_json(path)
    groups = {"custom": content} if isinstance(content, list) else content
    if not isinstance(groups, dict):
        raise DataError(f"{path}: expected {{category: [prompt, ...]}} or [prompt, ...]")
    prompts = []
    for category, entries in groups.items():
        if category.startswith("_"):
            continue
        if not isinstance(entries, list):
            raise DataError(f"{path}: {category} is no list: write [prompt, ...]")
        for number, entry in enumerate(entries, 1):
            prompts.append(_prompt(category, entry, f"{path}: {category}, prompt {number}"))
    if not prompts:
        raise DataError(f"{path} holds no prompts: give at least one")
    return prompts


def _prompt(category: str, entry: Any, place: str) -> SmokePrompt:
    values = {"prompt": entry} if isinstance(entry, str) else entry
    if not isinstance(values, dict) or not str(values.get("prompt", "")).strip():
        raise DataError(f'{place}: expected text or {{"prompt": text, ...}}')
    try:
        return SmokePrompt.model_validate({**values, "category": category})
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise DataError(f"{place}: {where}: {problem['msg']}: correct it") from error


def one_of_each(prompts: Sequence[SmokePrompt]) -> list[SmokePrompt]:
    """Return the first prompt of each category."""
    first: dict[str, SmokePrompt] = {}
    for prompt in prompts:
        first.setdefault(prompt.category, prompt)
    return list(first.values())


def run_smoke(
    loaded: LoadedModel,
    prompts: Sequence[SmokePrompt],
    max_new_tokens: int = 100,
    check: Check | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return (scores by category, one record a prompt with its whole answer), decoded greedily."""
    from utils.generation.sampling import Sampling

    is_chat = bool(loaded.card.get("template"))
    settings = Sampling(max_new_tokens=min(max_new_tokens, loaded.context_length // 2))
    records = []
    with progress("smoke prompts", len(prompts)) as task:
        for start in range(0, len(prompts), PROMPTS_AT_ONCE):
            if check is not None:
                check(start / len(prompts))
            part = prompts[start : start + PROMPTS_AT_ONCE]
            records += _answers(loaded, part, settings, is_chat)
            task.advance(len(part))
    return _summary(records, is_chat), records


def _answers(
    loaded: LoadedModel, prompts: Sequence[SmokePrompt], settings: "Sampling", is_chat: bool
) -> list[dict[str, Any]]:
    from utils.generation.engine import generate_batch

    ids = [_prompt_ids(loaded, prompt, is_chat) for prompt in prompts]
    room = loaded.context_length - settings.max_new_tokens
    places = [place for place, prompt_ids in enumerate(ids) if len(prompt_ids) <= room]
    answers = generate_batch(loaded, [ids[place] for place in places], settings)
    by_place = dict(zip(places, answers, strict=True))
    return [
        _record(prompt, by_place.get(place), is_chat, len(ids[place]))
        for place, prompt in enumerate(prompts)
    ]


def _prompt_ids(loaded: LoadedModel, prompt: SmokePrompt, is_chat: bool) -> list[int]:
    from utils.generation.prompts import text_prompt

    if not is_chat:
        return text_prompt(loaded, prompt.opening or prompt.prompt)
    messages = [*prompt.history, {"role": "user", "content": prompt.prompt}]
    return loaded.template.encode_prompt(messages, loaded.encoder)


def _record(
    prompt: SmokePrompt, answer: "Generated | None", is_chat: bool, prompt_tokens: int
) -> dict[str, Any]:
    asked = prompt.prompt if is_chat else prompt.opening or prompt.prompt
    record = {"category": prompt.category, "prompt": asked, "history": list(prompt.history)}
    if answer is None:
        reason = f"not run: {prompt_tokens} prompt tokens leave no room for an answer"
        return {**record, "status": reason}
    parts = quality(prompt, answer.text, answer.stopped if is_chat else None)
    return {
        **record,
        "status": "ok",
        "response": answer.text,
        "tokens": len(answer.ids),
        "ended": answer.stopped,
        "quality": parts,
    }


def _summary(records: Sequence[Mapping[str, Any]], is_chat: bool) -> dict[str, Any]:
    answered = [record for record in records if record["status"] == "ok"]
    if not answered:
        raise DataError("no smoke prompt fits into the context: give shorter ones")
    groups: dict[str, list[float]] = {}
    for record in answered:
        groups.setdefault(record["category"], []).append(record["quality"]["score"])
    scores = [score for group in groups.values() for score in group]
    return {
        "quality": sum(scores) / len(scores),
        "categories": {
            name: {"quality": sum(group) / len(group), "prompts": len(group)}
            for name, group in groups.items()
        },
        "prompts": len(answered),
        "left_out": len(records) - len(answered),
        "ended": sum(record["ended"] for record in answered) / len(answered),
        "as": "conversation" if is_chat else "continuation",
        "says": "form of the answers only; it is no measure of truth",
    }
