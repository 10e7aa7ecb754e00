"""Loop rows break off inside an answer, repeat its end, and teach only to stop there."""

import pytest

from utils.chat.rows import IGNORE, SFTRows
from utils.finetuning.loops import LEAST_REPEATED, LOOP_TOKENS, MAX_PHRASE, loop_rows

STOP = 2
PROMPT = [IGNORE] * 5


def _rows(*answers):
    rows = SFTRows()
    for number, answer in enumerate(answers):
        rows.conversations.append([{"role": "user", "content": str(number)}])
        rows.input_ids.append([*range(90, 95), *answer, STOP])
        rows.labels.append([*PROMPT, *answer, STOP])
    return rows


def _period(ids):
    """Return after how many tokens `ids` repeats itself from its beginning to its end."""
    return next(n for n in range(1, len(ids) + 1) if ids[n:] == ids[: len(ids) - n])


def test_stopping_is_learned_at_every_place_of_a_loop_and_nowhere_else():
    rows = _rows(*(list(range(100 * n, 100 * n + 30)) for n in range(2, 202)))
    loops = loop_rows(rows, 1.0, 256, seed=1)
    assert len(loops) == 200
    for ids, labels in zip(loops.input_ids, loops.labels, strict=True):
        source = rows.input_ids[ids[5] // 100 - 2]
        cut = next(
            n for n, (own, other) in enumerate(zip(ids, source, strict=False)) if own != other
        )
        period = next(n for n in range(1, MAX_PHRASE + 1) if ids[cut] == ids[cut - n])
        assert _period(ids[cut - period : -1]) == period
        spared = labels.index(STOP)
        assert labels == [IGNORE] * spared + [STOP] * (len(ids) - spared)
        assert spared - cut >= max(2 * period, LEAST_REPEATED)
        assert len(ids) - spared == LOOP_TOKENS + 1


def test_earlier_turns_stay_whole_and_unlearned():
    first, last = [10, 11, STOP], [20, 21, STOP]
    labels = [IGNORE, IGNORE, *first, IGNORE, *last]
    rows = SFTRows([[]], [[1, 2, *first, 3, *last]], [labels])
    for seed in range(20):
        (ids,) = loop_rows(rows, 1.0, 64, seed).input_ids
        assert ids[:6] == [1, 2, 10, 11, STOP, 3]
        assert set(ids[6:-1]) <= {20, 21}


def test_the_share_is_of_the_rows_and_the_seed_chooses_them():
    rows = _rows(*(list(range(30)) for _ in range(400)))
    assert len(loop_rows(rows, 0.05, 256, seed=1)) == 20
    assert len(loop_rows(rows, 0.0, 256, seed=1)) == 0
    assert loop_rows(rows, 0.05, 256, seed=1) == loop_rows(rows, 0.05, 256, seed=1)
    assert loop_rows(rows, 0.05, 256, seed=1) != loop_rows(rows, 0.05, 256, seed=2)


@pytest.mark.parametrize("answers", [([],), ([],) * 9])
def test_empty_answers_cannot_loop(answers):
    assert len(loop_rows(_rows(*answers), 1.0, 64, seed=1)) == 0


def test_no_row_is_longer_than_the_limit():
    rows = _rows(*(list(range(40)) for _ in range(50)))
    loops = loop_rows(rows, 1.0, 48, seed=1)
    assert 0 < len(loops) < 50
    assert max(loops.lengths) <= 48
    assert all(STOP in labels for labels in loops.labels)
