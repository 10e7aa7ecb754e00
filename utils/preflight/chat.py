"""Proofs about conversations: answers and their ends are learned, serving asks as training did."""

from collections.abc import Callable, Sequence

from utils.chat.rows import IGNORE, DPORows, SFTRows
from utils.chat.templates import Encoder, Message, Template
from utils.preflight.result import CheckResult

Conversation = list[Message]


def answers_are_learned(rows: SFTRows, stop_id: int) -> CheckResult:
    """Prove that every row has labels, equal to its ids, of which the stop token is the last."""
    is_right = []
    for ids, labels in zip(rows.input_ids, rows.labels, strict=True):
        learned = [label for label in labels if label != IGNORE]
        same = all(label in (IGNORE, token_id) for token_id, label in zip(ids, labels, strict=True))
        is_right.append(same and learned[-1:] == [stop_id])
    return _result(
        "every answer and its stop token are learned",
        is_right,
        "the mask of the answers is wrong, or max_length cuts them all; "
        "check utils/chat/rows.py and --max_length",
    )


def training_equals_serving(
    conversations: Sequence[Conversation],
    template: Template,
    encoder: Encoder,
    serve: Callable[[Conversation], list[int]],
) -> CheckResult:
    """Prove that in front of each answer, training has the ids that `serve` makes for the question.

    `serve` returns the prompt's ids for messages that end with the user's.
    """
    return _result(
        "training and serving lay out a conversation alike",
        [
            _answers_follow_prompts(
                messages, *template.encode_conversation(messages, encoder), serve
            )
            for messages in conversations
        ],
        "the template of training is not the one of serving; check lumi.json of the checkpoint",
    )


def _answers_follow_prompts(
    messages: Conversation,
    ids: list[int],
    mask: list[bool],
    serve: Callable[[Conversation], list[int]],
) -> bool:
    """Return whether each answer begins, in `mask`, right behind the prompt that `serve` makes."""
    for turn, message in enumerate(messages):
        if message["role"] != "assistant" or turn == 0 or messages[turn - 1]["role"] != "user":
            continue
        prompt = serve(messages[:turn])
        at = len(prompt)
        if ids[:at] != prompt or mask[at - 1] or at >= len(mask) or not mask[at]:
            return False
    return True


def chat_template_agrees(
    conversations: Sequence[Conversation],
    template: Template,
    encoder: Encoder,
    apply: Callable[[Conversation], list[int]],
) -> CheckResult:
    """Prove that other programs, which use `apply_chat_template`, ask with the same ids.

    Only up to the first question: behind an answer, the layouts without control tokens may put
    a piece across the border of two turns where one string is tokenized.
    """
    prompts = [_first_question(messages) for messages in conversations]
    return _result(
        "apply_chat_template gives the same ids",
        [apply(ask) == template.encode_prompt(ask, encoder) for ask in prompts if ask],
        "the checkpoint's chat template is another one; pass the --prompt_template it was made "
        "with, or fine-tune it again",
    )


def _first_question(messages: Conversation) -> Conversation:
    for turn, message in enumerate(messages):
        if message["role"] == "user":
            return messages[: turn + 1]
    return []


def preferences_are_learnable(rows: DPORows, stop_id: int) -> CheckResult:
    """Prove that the two answers of each pair differ and that both end with the stop token.

    That reference and policy start equal (loss ln 2) is proved by stage 04 itself at its first
    step, on the very models that it trains.
    """
    pairs = zip(rows.prompt_ids, rows.chosen_ids, rows.rejected_ids, strict=True)
    is_right = [
        bool(prompt) and chosen != rejected and chosen[-1:] == rejected[-1:] == [stop_id]
        for prompt, chosen, rejected in pairs
    ]
    return _result(
        "both answers of each pair end and differ",
        is_right,
        "the pairs teach nothing; check the data set and --max_length",
    )


def _result(name: str, is_right: list[bool], remedy: str) -> CheckResult:
    """Return whether all rows are right, one at least."""
    wrong = is_right.count(False)
    example = f", the first is row {is_right.index(False) + 1}" if wrong else ""
    measured = f"{wrong} of {len(is_right)} rows wrong{example}"
    return CheckResult(name, measured, "none of at least 1", not wrong and bool(is_right), remedy)
