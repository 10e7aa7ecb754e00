"""Does the same work on a Ray cluster: plain tasks over a folder that all nodes share.

Every result lies in the store, so a task that is lost with its node is simply done again elsewhere,
and the prepared folder is byte for byte that of local processes. Ray is an optional extra
(requirements-ray.txt).
"""

import importlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from utils.checkout import ROOT
from utils.data.work.workers import Item, Result
from utils.errors import ConfigError
from utils.stage import check_stop

WAIT_S = 1.0
"""A stop request is noticed in this time."""

log = logging.getLogger(__name__)


def _import_places() -> list[Path | str]:
    """Return where the workers find this code (the checkout is shared) and its libraries."""
    given = os.environ.get("PYTHONPATH")
    return [ROOT, *([given] if given else [])]


class RayWorkers:
    """All processors of a Ray cluster; where no address is given, of a new one on this machine."""

    def __init__(self, address: str | None = None) -> None:
        self._address = address
        self._ray: Any = None

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            ConfigError: Ray is not installed, or there is no cluster at the address.
        """
        try:
            ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise ConfigError(
                "executor = 'ray' needs Ray: make install-ray, or executor = 'local'"
            ) from error
        try:
            ray.init(
                self._address,
                include_dashboard=None if self._address else False,
                log_to_driver=False,
                runtime_env={
                    "env_vars": {"PYTHONPATH": os.pathsep.join(map(str, _import_places()))}
                },
                logging_level=logging.WARNING,
            )
        except ConnectionError as error:
            raise ConfigError(
                f"no Ray cluster at {self._address}: start one (ray start --head), or leave out "
                "--ray_address"
            ) from error
        self._ray = ray
        log.info("Ray: %d nodes, %d processors", len(ray.nodes()), self._processors())
        return self

    def __exit__(self, *raised: object) -> None:
        self._ray.shutdown()

    def _processors(self) -> int:
        return max(int(self._ray.cluster_resources().get("CPU", 1)), 1)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield function(item) in the order of `items`.

        Raises:
            Interrupted: a stop was requested.
            LumiError: what a task raised.
        """
        remote = self._ray.remote(num_cpus=1, max_retries=-1)(function)
        pending: deque[Any] = deque()
        for item in items:
            pending.append(remote.remote(item))
            if len(pending) >= 2 * self._processors() + 1:
                yield self._result(pending.popleft())
        while pending:
            yield self._result(pending.popleft())

    def _result(self, reference: Any) -> Any:
        while not self._ray.wait([reference], timeout=WAIT_S)[0]:
            check_stop()
        check_stop()
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
