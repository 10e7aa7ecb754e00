"""Entry point shared by the numbered scripts and the `python -m utils...` commands.

Exit codes: 0 done, 1 an error the user can act on (one line), 2 usage, 75 interrupted and saved.
"""

import atexit
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn, TypeVar

from utils.config.base import StageConfig, UsageError
from utils.errors import Interrupted, LumiError
from utils.log import setup_logging

EXIT_ERROR, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 75
ECHO_S = 1.0
"""A terminal or Slurm signals every process, and torchrun passes its own signal on: within this
many seconds that is one request."""

log = logging.getLogger(__name__)
Config = TypeVar("Config", bound=StageConfig)


class StopRequest:
    """Remembers that SIGINT or SIGTERM arrived; the second signal ends the process at once."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._first_s = 0.0

    def install(self) -> None:
        """Take over SIGINT and SIGTERM for this process."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def __bool__(self) -> bool:
        return self.signal_number is not None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is not None:
            if time.monotonic() - self._first_s < ECHO_S:
                return
            raise KeyboardInterrupt
        self.signal_number, self._first_s = number, time.monotonic()
        log.warning("stop requested: finishing this step and saving (again: stop at once)")


stop_request = StopRequest()
"""Loops that can save ask `if stop_request:` at each step and raise `Interrupted` after saving."""


def check_stop() -> None:
    """Raise when SIGINT or SIGTERM has arrived.

    Raises:
        Interrupted: always in that case; preparation writes nothing before it is done.
    """
    if stop_request:
        raise Interrupted("stopped while preparing data: run it again to go on")


def run_stage(
    main: Callable[[Config], object], config: type[Config], argv: Sequence[str] | None = None
) -> int:
    """Parse the settings, run `main`, and turn a `LumiError` into one line and an exit code."""
    setup_logging()
    try:
        main(config.from_cli(argv))
    except UsageError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_USAGE
    except (Interrupted, KeyboardInterrupt) as error:
        log.warning("%s", str(error) or "interrupted")
        return EXIT_INTERRUPTED
    except LumiError as error:
        log.error("%s", error)
        return EXIT_ERROR
    return 0


def leave(code: int) -> NoReturn:
    """End the process with `code` without the interpreter's teardown.

    With torch and compiled code loaded that takes seconds, which would fall outside a time box.
    Exit handlers run; nothing else is skipped that could be seen from outside.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
