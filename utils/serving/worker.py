"""One answer at a time, written in a thread, so that the event loop stays free.

Requests wait in a queue with an end; a request that is given up (the client is gone, its time is
over) stops at the next token. Knows nothing about HTTP except the status of a refusal.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

from utils.errors import LumiError
from utils.generation.engine import Generated, Stream

MAX_WAITING = 8
"""Requests that may wait while one is answered."""
MakeStream = Callable[[Callable[[], bool]], Stream]
"""Takes `should_stop` and returns the stream of an answer; it runs in the thread."""


class BusyError(LumiError):
    """The queue is full (429), or the time of a request was over before its turn came (503)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _too_busy() -> BusyError:
    return BusyError(503, "the server was busy for too long: try again later")


class Job:
    """An answer that is being written."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        """On `time.monotonic`; the answer is cut off there."""
        self.prompt_tokens = 0
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._cancelled = threading.Event()
        self.future: asyncio.Future[Generated] | None = None

    def cancel(self) -> None:
        """Stop writing at the next token."""
        self._cancelled.set()

    def write(self, make_stream: MakeStream) -> Generated:
        """Write the answer; the thread's part. A first empty piece says that it has begun."""
        if self._should_stop():
            raise _too_busy()
        pieces = make_stream(self._should_stop)
        self.prompt_tokens = pieces.prompt_tokens
        self._put("")
        for piece in pieces:
            self._put(piece)
        return pieces.result

    def finish(self, _: object) -> None:
        """Tell the reader that no piece follows."""
        self._queue.put_nowait(None)

    async def begin(self) -> None:
        """Wait until the first token is being computed.

        Raises:
            BusyError: the time was over before the turn came.
            DataError: the prompt cannot be answered.
        """
        try:
            async with asyncio.timeout(self.deadline - time.monotonic()):
                if await self._queue.get() is None:
                    await self.result()
        except TimeoutError as error:
            raise _too_busy() from error

    async def pieces(self) -> AsyncIterator[str]:
        """Yield pieces of text as they are written."""
        while (piece := await self._queue.get()) is not None:
            yield piece
        await self.result()

    async def result(self) -> Generated:
        """Wait for the end and return the whole answer."""
        assert self.future is not None
        return await asyncio.shield(self.future)

    def _should_stop(self) -> bool:
        return self._cancelled.is_set() or time.monotonic() > self.deadline

    def _put(self, piece: str) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, piece)


class Worker:
    """The thread that writes, and the queue in front of it."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.pending = 0
        """Requests being answered or waiting."""
        self.stopping = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="generate")
        self._jobs: set[Job] = set()

    def submit(self, make_stream: MakeStream) -> Job:
        """Queue an answer.

        Raises:
            BusyError: too many are waiting, or the server is about to end.
        """
        if self.stopping:
            raise BusyError(503, "the server is stopping")
        if self.pending > MAX_WAITING:
            raise BusyError(429, f"{MAX_WAITING} requests are waiting already: try again later")
        job = Job(time.monotonic() + self.timeout_s)
        self.pending += 1
        self._jobs.add(job)
        loop = asyncio.get_running_loop()
        job.future = loop.run_in_executor(self._thread, job.write, make_stream)
        job.future.add_done_callback(job.finish)
        job.future.add_done_callback(lambda _: self._done(job))
        return job

    def stop(self) -> None:
        """End all answers as they are, and take no more."""
        self.stopping = True
        for job in self._jobs:
            job.cancel()

    def close(self) -> None:
        """Stop, and end the thread."""
        self.stop()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _done(self, job: Job) -> None:
        self.pending -= 1
        self._jobs.discard(job)
        if job.future is not None and not job.future.cancelled():
            job.future.exception()  # nobody may be left to ask for it
