"""The end of a session: sample answers, the report, and the table on stdout."""

import logging
import platform
import sys
import time
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from utils.errors import DataError
from utils.files import read_json, write_atomic
from utils.machine.facts import package_versions
from utils.session.report.diagnosis import diagnose
from utils.session.report.page import render_report
from utils.session.report.verdict import next_command
from utils.session.state.folder import Session
from utils.session.state.stages import StageContext

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "sentencepiece")
WIDTH = 100

log = logging.getLogger(__name__)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide the numbers."""
    found = package_versions(PACKAGES).items()
    return {
        "python": platform.python_version(),
        **{name: version or "not installed" for name, version in found},
    }


def read_answers(session: Session) -> dict[str, list[dict[str, Any]]]:
    """Return what the models answered, {model: [{question, answer, stopped}]}; {} for nothing."""
    path = session.folder / "answers.json"
    try:
        answers = read_json(path) if path.is_file() else {}
    except DataError as error:
        log.warning("no sample answers: %s", error)
        return {}
    return {model: answers[model] for model in ("sft", "dpo") if model in answers}


def write_report(session: Session, context: StageContext | None) -> None:
    """Write report.html from what is in the session's folder and the runs it made."""
    started = time.monotonic()
    session.summary["versions"] = versions()
    entry = session.stage("report")
    html = render_report(session, context, read_answers(session))
    write_atomic(session.folder / "report.html", html)
    entry["used"] = round(entry["used"] + (time.monotonic() - started) / 60, 3)
    entry["status"] = "finished"
    entry["result"] = "report.html"


def final_words(session: Session) -> None:
    """Write the table of stages, the sample answers and the next command to stdout."""
    summary = session.summary
    console = Console(file=sys.stdout, highlight=False, width=_width())
    console.print()
    console.print(stage_table(summary))
    for model, answers in read_answers(session).items():
        for number, item in enumerate(answers, start=1):
            console.print(Text(f"\n{model} model, held-out question {number}: {item['question']}"))
            console.print(Text(f"  {item['answer'].strip() or '(an empty answer)'}", style="cyan"))
    budget = summary["minutes_budget"]
    of_box = "" if budget is None else f" of {budget:g}"
    console.print(Text(f"\n{summary['minutes_used']:.1f}{of_box} minutes used"))
    console.print(Text(f"Report: {summary['report']}"), soft_wrap=True)
    console.print(Text(f"Next:   {next_command(summary)}"))


def advise(session: Session) -> None:
    """Write to stdout what is missing or wrong here and what to run."""
    cfg = session.cfg
    sys.stdout.write("\nWhat to do:\n")
    for found, remedy in diagnose(cfg.work_dir, cfg.runs_dir):
        sys.stdout.write(f"  {found}: {remedy}\n")


def _width() -> int | None:
    """Return None (the terminal's width) on a terminal, else a fixed one."""
    return None if sys.stdout.isatty() else WIDTH


def stage_table(summary: dict[str, Any]) -> Table:
    """Return the table of stages: minutes planned and used, and what came out."""
    table = Table(
        title=f"Session {summary['session']}: {summary['status']}",
        title_justify="left",
        box=box.SIMPLE,
    )
    table.add_column("stage")
    table.add_column("planned", justify="right")
    table.add_column("used", justify="right")
    table.add_column("what came out")
    for entry in summary["stages"]:
        planned = "" if entry["planned"] is None else f"{entry['planned']:.1f}"
        status = "not run" if entry["status"] == "waiting" else entry["status"]
        came_out = entry["result"] if status == "finished" else status
        table.add_row(entry["name"], planned, f"{entry['used']:.1f}", Text(came_out))
    return table
