"""A thread that writes while training goes on: one job after the other, no error lost."""

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from utils.errors import LumiError

log = logging.getLogger(__name__)


class Writer:
    """Runs jobs in the order they were handed in; `with` waits for the last one."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        self._jobs: deque[Future[object]] = deque()
        self._has_failed = False

    @property
    def is_busy(self) -> bool:
        """Whether a job is waiting or under way."""
        return any(not job.done() for job in self._jobs)

    def submit(self, job: Callable[[], object]) -> None:
        """Hand in a job; the error of an earlier one is raised here."""
        self.check()
        self._jobs.append(self._thread.submit(self._run, job))

    def check(self) -> None:
        """Raise the error of a job that has failed; the jobs behind it are dropped."""
        while self._jobs and self._jobs[0].done():
            self._finish_first()

    def wait(self) -> None:
        """Wait for all jobs; raise the error of one that fails."""
        while self._jobs:
            self._finish_first()

    def _finish_first(self) -> None:
        job = self._jobs[0]
        try:
            job.result()
        except BaseException:
            if self._has_failed:
                self._drop()
            raise
        self._jobs.popleft()

    def _run(self, job: Callable[[], object]) -> None:
        """Do a job in the thread; those behind a failed one are passed over."""
        if self._has_failed:
            return
        try:
            job()
        except BaseException:
            self._has_failed = True
            raise

    def _drop(self) -> None:
        """Forget all jobs, and that one has failed."""
        for job in self._jobs:
            job.exception()
        self._jobs.clear()
        self._has_failed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait, unless a second signal asked to stop at once; tell of an error beside `error`."""
        is_urgent = kind is not None and issubclass(kind, KeyboardInterrupt)
        try:
            if not is_urgent:
                self.wait()
        except Exception as failed:
            if kind is None:
                raise
            log.error("%s", failed, exc_info=not isinstance(failed, LumiError))
        finally:
            self._thread.shutdown(wait=not is_urgent, cancel_futures=is_urgent)
