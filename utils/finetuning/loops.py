"""Rows that teach a model to end an answer in which it has begun to repeat itself.

A small model falls into loops when it answers greedily: every repetition makes the next one
likelier, and no real answer shows a way out. So a few rows get an answer that breaks off and goes
on repeating its last few tokens; at every place of the loop the stop token is learned, and nothing
before it. The method is that of Xu et al., 2022, "Learning to Break the Loop" (training on
repetitions made from real sentences), with the stop token as the target in place of their loss.
"""

import random
from collections.abc import Sequence

from utils.finetuning.datasets import IGNORE, DPORows, SFTRows

MAX_PHRASE = 8
"""Longest repeated phrase, in tokens."""
LEAST_REPEATED = 6
"""Tokens that are repeated, twice at least, before the answer counts as a loop."""
LOOP_TOKENS = 32
"""Tokens of a loop in which the stop token is learned."""
PAIRS_PER_LOOP = 8
"""Preference pairs for each row with a loop."""


def loop_rows(rows: SFTRows, share: float, max_length: int, seed: int) -> SFTRows:
    """Return `share` x len(rows) rows with a loop at the end of their last answer."""
    chance = random.Random(f"{seed} loops")
    loops = SFTRows()
    for number in chance.sample(range(len(rows)), k=int(share * len(rows))):
        ids, labels = looped(rows.input_ids[number], last_answer(rows.labels[number]), chance)
        if ends_in_time(labels, max_length):
            loops.conversations.append(rows.conversations[number])
            loops.input_ids.append(ids[:max_length])
            loops.labels.append(labels[:max_length])
    return loops


def loops_beside(
    rows: DPORows, order: Sequence[int], max_length: int, seed: int
) -> list[tuple[list[int], list[int]]]:
    """Return (ids, labels) of a loop in the chosen answer for each row; most have none, both empty.

    Every PAIRS_PER_LOOP-th row has one in the first pass through `order`, and the same rows later.
    """
    chance = random.Random(f"{seed} loops")
    beside = [(list[int](), list[int]()) for _ in range(len(rows))]
    for number in order[: len(rows) : PAIRS_PER_LOOP]:
        prompt, chosen = rows.prompt_ids[number], rows.chosen_ids[number]
        ids, labels = looped(prompt + chosen, len(prompt), chance)
        if ends_in_time(labels, max_length):
            beside[number] = ids[:max_length], labels[:max_length]
    return beside


def last_answer(labels: list[int]) -> int:
    """Return where the last answer of a row begins."""
    return len(labels) - next(n for n, label in enumerate(reversed(labels)) if label == IGNORE)


def ends_in_time(labels: list[int], max_length: int) -> bool:
    """Tell whether a stop token is learned within the first `max_length` places."""
    return any(label != IGNORE for label in labels[:max_length])


def looped(ids: list[int], begin: int, chance: random.Random) -> tuple[list[int], list[int]]:
    """Return ids and labels of a row whose answer, from `begin` on, breaks off and loops.

    Both are empty where the answer is its stop token alone.
    """
    if len(ids) - begin < 2:
        return [], []
    cut = chance.randrange(begin + 1, len(ids))
    phrase = ids[max(begin, cut - chance.randint(1, MAX_PHRASE)) : cut]
    spared = cut + len(phrase) * max(2, -(-LEAST_REPEATED // len(phrase)))
    stop = ids[-1]
    end = spared + LOOP_TOKENS
    row = ids[:cut] + phrase * (end // len(phrase))
    return [*row[:end], stop], [IGNORE] * spared + [stop] * (LOOP_TOKENS + 1)
