"""Lists the sessions so far: `python -m utils.session.status` (make session-status)."""

import sys
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from utils.config.session import StatusConfig
from utils.session.state.folder import Session, list_sessions
from utils.stage import run_stage
from utils.words import NOT_MEASURED, number

WIDTH = 120


def status_table(sessions: list[Session]) -> Table:
    """Return a table with a row for each session, newest first."""
    table = Table(title="Sessions", title_justify="left", box=box.SIMPLE)
    for name, justify in (
        ("session", "left"), ("state", "left"), ("time box", "right"), ("used", "right"),
        ("bits/byte", "right"), ("report or what to do", "left"),
    ):  # fmt: skip
        table.add_column(name, justify=justify, overflow="fold")  # pyright: ignore[reportArgumentType]
    for session in reversed(sessions):
        table.add_row(*_row(session))
    return table


def _row(session: Session) -> tuple[str, ...]:
    summary: dict[str, Any] = session.summary
    budget = summary["minutes_budget"]
    state = session.status
    if state == "running":
        place = f"running {_running_stage(summary)}"
    elif state == "interrupted":
        place = f"stopped in {_running_stage(summary)}: make resume"
    else:
        place = summary["report"]
    return (
        session.folder.name,
        state,
        NOT_MEASURED if budget is None else f"{budget:g} min",
        f"{session.used_s / 60:.1f} min",
        number(summary["pretrain"].get("val_bpb")),
        place,
    )


def _running_stage(summary: dict[str, Any]) -> str:
    """Return the first stage that is not finished."""
    unfinished = [s["name"] for s in summary["stages"] if s["status"] != "finished"]
    return unfinished[0] if unfinished else "its report"


def main(cfg: StatusConfig) -> None:
    """Write the table to stdout."""
    sessions = list_sessions(cfg.runs_dir)
    if not sessions:
        sys.stdout.write(f"no sessions in {cfg.runs_dir} yet: start one with make session-quick\n")
        return
    width = None if sys.stdout.isatty() else WIDTH
    Console(file=sys.stdout, highlight=False, width=width).print(status_table(sessions))


if __name__ == "__main__":
    sys.exit(run_stage(main, StatusConfig))
