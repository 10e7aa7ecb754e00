"""Removes folders of failed and interrupted sessions (make session-cleanup).

Finished and running sessions, checkpoints and data are never touched; the newest failed or
interrupted ones stay for `make resume`.
"""

import logging
import shutil
import sys

from utils.config.session import CleanupConfig
from utils.session.state.folder import Session, list_sessions
from utils.stage import run_stage

log = logging.getLogger(__name__)


def removable(sessions: list[Session], keep: int) -> list[Session]:
    """Return the failed and interrupted sessions but the newest `keep`, oldest first."""
    broken = [session for session in sessions if session.status in ("failed", "interrupted")]
    return broken[: max(0, len(broken) - keep)]


def main(cfg: CleanupConfig) -> None:
    """List, and with --yes remove."""
    found = removable(list_sessions(cfg.runs_dir), cfg.keep)
    for session in found:
        if cfg.yes:
            shutil.rmtree(session.folder)
        verb = "removed" if cfg.yes else "would remove"
        sys.stdout.write(f"{verb} {session.folder} ({session.status})\n")
    if not found:
        sys.stdout.write("nothing to remove\n")
    elif not cfg.yes:
        sys.stdout.write("nothing removed yet: run make session-cleanup CONFIRM=yes\n")


if __name__ == "__main__":
    sys.exit(run_stage(main, CleanupConfig))
