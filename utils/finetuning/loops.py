"""Rows that teach a model to end an answer in which it has begun to repeat itself.

A small model falls into loops when it answers greedily: every repetition makes the next one
likelier, and no real answer shows a way out. So a few rows get an answer that breaks off and goes
on repeating its last few tokens; at every place of the loop the stop token is learned, and nothing
before it. The method is that of Xu et al., 2022, "Learning to Break the Loop" (training on
repetitions made from real sentences), with the stop token as the target in place of their loss.
"""

import random

from utils.chat.rows import IGNORE, SFTRows

MAX_PHRASE = 8
"""Longest repeated phrase, in tokens."""
LEAST_REPEATED = 6
"""Tokens that are repeated, twice at least, before the answer counts as a loop."""
LOOP_TOKENS = 32
"""Tokens of a loop in which the stop token is learned."""


def loop_rows(rows: SFTRows, share: float, max_length: int, seed: int) -> SFTRows:
    """Return `share` x len(rows) rows with a loop at the end of their last answer."""
    chance = random.Random(f"{seed} loops")
    loops = SFTRows()
    for number in chance.sample(range(len(rows)), k=int(share * len(rows))):
        ids, labels = rows.input_ids[number], rows.labels[number]
        begin = last_answer(labels)
        if len(ids) - begin < 2:  # the stop token alone
            continue
        looped, targets = _looped(ids, begin, chance)
        if targets[max_length - 1 : max_length] != [IGNORE]:
            loops.conversations.append(rows.conversations[number])
            loops.input_ids.append(looped[:max_length])
            loops.labels.append(targets[:max_length])
    return loops


def last_answer(labels: list[int]) -> int:
    """Return where the last answer of a row begins."""
    return len(labels) - next(n for n, label in enumerate(reversed(labels)) if label == IGNORE)


def _looped(ids: list[int], begin: int, chance: random.Random) -> tuple[list[int], list[int]]:
    """Return ids and labels of a row whose answer, from `begin` on, breaks off and loops."""
    cut = chance.randrange(begin + 1, len(ids))
    phrase = ids[max(begin, cut - chance.randint(1, MAX_PHRASE)) : cut]
    spared = cut + len(phrase) * max(2, -(-LEAST_REPEATED // len(phrase)))
    stop = ids[-1]
    end = spared + LOOP_TOKENS
    looped = ids[:cut] + phrase * (end // len(phrase))
    return [*looped[:end], stop], [IGNORE] * spared + [stop] * (LOOP_TOKENS + 1)
