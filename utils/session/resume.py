"""Goes on with the newest unfinished session or pre-training run (make resume, no argument).

A session goes on at the stage that was cut, with what is left of its box. A pre-training run that
belongs to no unfinished session is started again with its recorded flags and continues from its
newest good checkpoint. Exit 0 when there is nothing to resume: nothing is wrong then.
"""

import logging
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import psutil

from utils.checkout import SCRIPTS
from utils.config.kinds import Kind
from utils.config.pretrain import PretrainConfig
from utils.config.session import ResumeConfig
from utils.config.variables import to_flags
from utils.errors import BudgetError, LumiError
from utils.files import folder_damage
from utils.machine.child_process import child_environment
from utils.run_folder import RunFolder
from utils.session.runner import REAL, Runner, Tools
from utils.session.state.display import Display
from utils.session.state.folder import Session, list_sessions, refuse_second_session
from utils.stage import run_stage, stop_request

UNFINISHED = ("running", "interrupted", "failed")
SAVING_S = 60.0
"""Longest wait for a stage of a killed runner to save and end."""

log = logging.getLogger(__name__)


def unfinished_sessions(runs_dir: Path) -> list[Session]:
    """Return the sessions that can go on: interrupted ones, and the newest one if it failed."""
    sessions = [s for s in list_sessions(runs_dir) if "pretrain" in s.cfg.stages]
    found = [session for session in sessions if session.status == "interrupted"]
    if sessions and sessions[-1].status == "failed" and "costs" in sessions[-1].plan:
        found.append(sessions[-1])
    return found


def unfinished_runs(checkpoints_dir: Path, sessions: list[Session]) -> list[RunFolder]:
    """Return the unfinished pre-training runs that belong to none of `sessions`."""
    found = []
    for folder in RunFolder.all_in(checkpoints_dir):
        try:
            run = RunFolder.read(folder)
        except LumiError as error:
            log.warning("skipping %s", error)
            continue
        is_owned = any("pretrain_config.json" in flag for flag in run.flags)
        is_owned = is_owned or any(run.is_of(session.folder) for session in sessions)
        if run.status in UNFINISHED and run.flags and not is_owned:
            found.append(run)
    return found


def resume(cfg: ResumeConfig, tools: Tools = REAL) -> None:
    """Go on with what was interrupted last.

    Raises:
        LumiError: it failed again, or another process is at work on it.
    """
    refuse_second_session(cfg.runs_dir)
    sessions = unfinished_sessions(cfg.runs_dir)
    runs = unfinished_runs(cfg.checkpoints_dir, sessions)
    if not sessions and not runs:
        sys.stdout.write("nothing to resume: every session and pre-training run is finished\n")
        return
    session = max(sessions, key=last_life, default=None)
    run = max(runs, key=lambda run: run.modified, default=None)
    if session is not None and (run is None or last_life(session) >= run.modified):
        resume_session(session, tools)
    elif run is not None:
        resume_run(run)


def last_life(session: Session) -> float:
    """Return when a session last noted the time it used (Unix seconds)."""
    return (session.folder / "state.json").stat().st_mtime


def resume_session(session: Session, tools: Tools = REAL) -> None:
    """Go on with a session at the stage that was cut.

    Raises:
        BudgetError: its box is used up.
    """
    _wait_for_orphans(session)
    left = session.left_s
    if left <= 0:
        raise BudgetError(
            f"session {session.folder.name} has used up its {session.summary['minutes_budget']:g} "
            "min: start a new one, with SESSION_MINUTES= for a larger time box"
        )
    display = Display()
    box = "" if session.box_s is None else f" with {left / 60:.1f} min left"
    display.say(f"Going on with session {session.folder.name}{box}", "bold")
    for entry in session.summary["stages"]:
        if entry["status"] != "finished":
            entry["status"] = "waiting"
    session.summary |= {"status": "running", "error": None, "finished": None}
    session.start_clock()
    session.event("resume", left_s=None if session.box_s is None else round(left, 1))
    session.save()
    Runner(session, display, tools).run()


def _wait_for_orphans(session: Session) -> None:
    """Wait until the stage of a killed runner has saved; the kernel told it to stop."""
    name = session.folder.name
    stages = [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(name in part for part in process.info["cmdline"] or [])
        and process.info["cmdline"][:1] == [sys.executable]
    ]
    _gone, alive = psutil.wait_procs(stages, timeout=SAVING_S if stages else 0)
    if alive:
        raise LumiError(
            f"a stage of session {name} is still running (process {alive[0].pid}): stop it first"
        )


def resume_run(run: RunFolder) -> NoReturn:
    """Become stage 02 again with the flags that the run was started with."""
    flags = list(run.flags)
    data_dir = run.settings.get("data_dir")
    if data_dir and not {"--data_dir", "--data_path", "--data_dirs"} & set(flags):
        flags += ["--data_dir", data_dir]  # a newer data set may be there by now
    flags += _kept(run.settings, PretrainConfig.from_cli(flags))
    places = [*run.folder.glob("step_*"), run.folder / "best", run.folder / "final"]
    if any(folder_damage(place) is None for place in places):
        flags += ["--resume_from_checkpoint", str(run.folder)]  # the last one counts
    log.info("going on with pre-training %s", run.folder)
    command = [sys.executable, str(SCRIPTS / "02_pretrain.py"), *flags]
    os.execve(sys.executable, command, child_environment(os.environ))


def _kept(recorded: dict[str, Any], now: PretrainConfig) -> list[str]:
    """Return flags for what shapes the model and would be another by a newer default or file."""
    found_by_the_run = {"vocab_size", "global_batch_size"}
    shaping = set(PretrainConfig.names(Kind.SHAPING)) - found_by_the_run
    values = now.resolved()
    kept = {
        name: recorded[name]
        for name in sorted(shaping & recorded.keys())
        if recorded[name] is not None and recorded[name] != values[name]
    }
    for name, value in kept.items():
        log.info("keeping --%s %s of the run (it would be %s now)", name, value, values[name])
    return to_flags(kept)


def main(cfg: ResumeConfig) -> None:
    """Resume, and say when there is nothing to resume."""
    stop_request.install()
    resume(cfg)


if __name__ == "__main__":
    sys.exit(run_stage(main, ResumeConfig))
