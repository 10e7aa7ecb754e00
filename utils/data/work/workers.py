"""A pure function over batches in several processes, results in order, memory bounded.

A worker that is killed (out of memory) raises at once, workers end with their parent even when it
is killed, and a stop request leaves nothing running. One process is used where one is enough.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from typing import Protocol, Self, TypeVar

from utils.errors import LumiError
from utils.stage import check_stop

WORTH_A_POOL = 4
"""Batches from which the second that a pool needs to start is worth it."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class AnyWorkers(Protocol):
    """Whatever applies a function to items and returns the results in order."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield function(item) in the order of `items`."""
        ...


class Workers:
    """Up to `count` processes that are started when there is work for them."""

    def __init__(self, count: int | None = None) -> None:
        self.count = count or os.cpu_count() or 1
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield function(item) in the order of `items`.

        Raises:
            Interrupted: a stop was requested.
            LumiError: a worker was killed.
        """
        rest = iter(items)
        first = list(islice(rest, WORTH_A_POOL))
        if self.count == 1 or (len(first) < WORTH_A_POOL and self._pool is None):
            for item in chain(first, rest):
                check_stop()
                yield function(item)
            return
        try:
            yield from self._parallel(function, chain(first, rest))
        except BrokenProcessPool as error:
            raise LumiError(
                f"a worker process was killed, probably for want of memory ({self.count} "
                "processes): run again with a smaller --num_workers"
            ) from error

    def _parallel(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[Result]:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.count, context, initializer=_begin_worker)
        pending = deque()
        for item in items:
            check_stop()
            pending.append(self._pool.submit(function, item))
            if len(pending) >= 2 * self.count + 1:
                yield pending.popleft().result()
        while pending:
            check_stop()
            yield pending.popleft().result()


def _begin_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
