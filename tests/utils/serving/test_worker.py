import asyncio
import time
from itertools import count

import pytest

from utils.errors import DataError
from utils.generation.engine import Stream
from utils.generation.sampling import Sampling
from utils.serving.worker import MAX_WAITING, BusyError, Worker

ENDLESS = Sampling(max_new_tokens=100)


def slow(loaded):
    """An answer that gets no further than its first token until it is stopped."""

    def make(should_stop):
        asked = count()

        def stopped():
            while next(asked) and not should_stop():
                time.sleep(0.01)
            return should_stop()

        return Stream(loaded, [60, 61], ENDLESS, stopped)

    return make


def quick(loaded):
    return lambda should_stop: Stream(loaded, [60, 61], Sampling(max_new_tokens=4), should_stop)


def test_a_cancelled_answer_makes_room_for_the_next(loaded):
    async def scene():
        worker = Worker(timeout_s=30)
        first = worker.submit(slow(loaded))
        await first.begin()
        second = worker.submit(quick(loaded))
        assert worker.pending == 2
        first.cancel()
        await second.begin()
        result = await second.result()
        worker.close()
        return (await first.result()), result, worker.pending

    first, second, pending = asyncio.run(scene())
    assert len(first.ids) < ENDLESS.max_new_tokens and not first.stopped
    assert len(second.ids) == 4
    assert pending == 0


def test_the_queue_has_an_end(loaded):
    async def scene():
        worker = Worker(timeout_s=30)
        jobs = [worker.submit(slow(loaded)) for _ in range(1 + MAX_WAITING)]
        with pytest.raises(BusyError) as refusal:
            worker.submit(quick(loaded))
        for job in jobs:
            job.cancel()
        worker.close()
        return refusal.value.status

    assert asyncio.run(scene()) == 429


def test_an_answer_is_cut_off_when_its_time_is_over(loaded):
    async def scene():
        worker = Worker(timeout_s=0.4)
        job = worker.submit(slow(loaded))
        late = worker.submit(quick(loaded))
        with pytest.raises(BusyError) as refusal:
            late.deadline -= 0.3  # as if it had come earlier
            await late.begin()
        result = await job.result()
        worker.close()
        return result, refusal.value.status

    result, status = asyncio.run(scene())
    assert 0 < len(result.ids) < ENDLESS.max_new_tokens and not result.stopped
    assert status == 503


def test_a_prompt_that_cannot_be_answered_is_told_before_the_first_piece(loaded):
    async def scene():
        worker = Worker(timeout_s=30)
        job = worker.submit(lambda stop: Stream(loaded, [60] * 100, ENDLESS, stop))
        with pytest.raises(DataError, match="exceed the context"):
            await job.begin()
        worker.close()

    asyncio.run(scene())
