"""Runs a session: measures this machine, plans, runs each stage in its share of the box, reports.

`python -m utils.session.runner --config sessions/quick.json --minutes 12`

Stops at the first stage that fails and names it; SIGINT and SIGTERM let the running stage save and
leave a session that `make resume` continues.
"""

import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from utils.config.session import SessionConfig
from utils.config.variables import check_flags, stage_overrides
from utils.errors import BudgetError, Interrupted, LumiError
from utils.files import move_aside
from utils.lock import one_writer
from utils.machine.child_process import ChildResult, run_child
from utils.machine.probe import Speed, measure_machine
from utils.run_folder import RunFolder, read_metrics
from utils.session.plan import (
    SessionPlan,
    announce,
    check_settings,
    plan_session,
    replan,
)
from utils.session.report import outcome
from utils.session.report.closing import advise, final_words, write_report
from utils.session.state.display import Clock, Display
from utils.session.state.folder import Session, refuse_second_session
from utils.session.state.stages import StageContext, stage_command
from utils.stage import EXIT_INTERRUPTED, run_stage, stop_request


@dataclass(frozen=True)
class Tools:
    """What a session works with; tests put small programs in the place of the stages."""

    command: Callable[[str, StageContext, float | None], list[str]] = stage_command
    """Builds the command line of a stage that has so many minutes."""
    measure: Callable[[], Speed] = measure_machine
    """Measures this machine."""
    say_end: Callable[[Session], None] = final_words
    """Says on stdout what came out of a finished session."""


REAL = Tools()

log = logging.getLogger(__name__)


class StageFailed(LumiError):
    """A stage of a session ended without its result."""


@dataclass
class Runner:
    """One session under way."""

    session: Session
    display: Display
    tools: Tools = REAL
    plan: SessionPlan | None = None

    def run(self) -> None:
        """Run what is left of the session and write its report.

        Raises:
            StageFailed: a stage failed; later ones did not run.
            Interrupted: a signal arrived; `make resume` goes on.
            BudgetError: the box is too small.
        """
        session = self.session
        try:
            self.plan = plan_session(session, self.display, self.tools.measure)
            outcome.require_own_models(session.summary, self.plan.context)
            for number, stage in enumerate(session.cfg.stages, start=1):
                if session.stage(stage)["status"] != "finished":
                    self._run_stage(number, stage, self.plan)
            self._answers(self.plan)
        except (Interrupted, KeyboardInterrupt) as error:
            self._close("interrupted", str(error) or "stopped at once")
            raise
        except LumiError as error:
            self._close("failed", str(error))
            raise
        self._close("finished")
        self.tools.say_end(session)

    def _close(self, status: str, error: str | None = None) -> None:
        """Write the final status and the report."""
        self.display.end()
        self.session.close(status, error)
        write_report(self.session, self.plan.context if self.plan else None)
        self.session.save()
        if "check" in self.session.cfg.stages:
            advise(self.session)

    def _answers(self, plan: SessionPlan) -> None:
        """Let the fine-tuned models answer held-out questions; the report shows what they say."""
        if not {"sft", "dpo"} & set(self.session.cfg.stages):
            return
        planned_s = replan(self.session, plan)["report"]
        announce(self.display, "[report] sample answers", planned_s, self.session.left_s)
        result = self.run_process("answers", plan.context, planned_s)
        if stop_request:
            raise Interrupted("session interrupted in its report: go on with make resume")
        if result.exit_code:
            log.warning("no sample answers in the report: %s", result.last_error)

    def _run_stage(self, number: int, stage: str, plan: SessionPlan) -> None:
        """Run one stage in its share of what is left; its outcome goes into the summary."""
        session, entry = self.session, self.session.stage(stage)
        planned_s = replan(session, plan)[stage]
        entry["planned"] = None if planned_s is None else round(planned_s / 60, 3)
        total = len(session.cfg.stages)
        announce(self.display, f"[{number}/{total}] {stage}", planned_s, session.left_s)
        where = f"session failed in step {number} of {total}: {stage}"
        try:
            if not outcome.is_finished(stage, plan.context):
                before_s = continued_s(plan.context) if stage == "pretrain" else 0.0
                result = self.run_process(stage, plan.context, planned_s, before_s)
                self._check(result, stage, where)
        except (Interrupted, StageFailed, BudgetError):
            raise
        except LumiError as error:
            entry["status"] = "failed"
            raise StageFailed(f"{where}: {error}") from error
        try:
            numbers, entry["result"] = outcome.read_outcome(stage, plan.context)
        except LumiError as error:
            entry["status"] = "failed"
            raise StageFailed(f"{where} left no result: {error}") from error
        if numbers:
            session.summary["evaluation" if stage == "evaluate" else stage] |= numbers
        entry["status"] = "finished"
        session.save()
        self.display.say(f"      {stage} done in {entry['used']:.1f} min: {entry['result']}")
        if stop_request:
            raise Interrupted(f"session interrupted after {stage}: go on with make resume")

    def run_process(
        self, stage: str, context: StageContext, planned_s: float | None, before_s: float = 0.0
    ) -> ChildResult:
        """Run a stage's process to its end and add its minutes to the summary's entry.

        `before_s` are the seconds that the stage itself remembers from before an interruption.
        """
        session = self.session
        entry = session.stage("report" if stage == "answers" else stage)
        entry["status"] = "running"
        session.save()
        clock = Clock(session.box_s, session.left_s)
        already = entry["used"]
        started = time.monotonic()

        def tick() -> None:
            self.display.tick(clock.left())
            entry["used"] = round(already + (time.monotonic() - started) / 60, 3)
            session.beat()

        deadline = None if session.box_s is None else started + max(session.left_s - 2.0, 0.0)
        minutes = None if planned_s is None else (planned_s + before_s) / 60
        command = self.tools.command(stage, context, minutes)
        session.event("start", stage=stage, planned_s=planned_s, command=command)
        try:
            return run_child(
                command,
                session.log_file,
                lambda line: self.display.line(line, clock.left()),
                cwd=session.cfg.work_dir.absolute(),
                deadline=deadline,
                on_tick=tick,
            )
        finally:
            tick()
            self.display.end()

    def _check(self, result: ChildResult, stage: str, where: str) -> None:
        """Turn anything but a success of a stage into the error that ends the session."""
        entry = self.session.stage(stage)
        if result.stopped_by == "deadline":
            entry["status"] = "failed"
            raise BudgetError(f"{where} ran past the end of the time box and was stopped")
        if result.exit_code and (stop_request or result.exit_code == EXIT_INTERRUPTED):
            entry["status"] = "interrupted"
            raise Interrupted(f"session interrupted in {stage}: saved; go on with make resume")
        if result.exit_code:
            entry["status"] = "failed"
            raise StageFailed(f"{where} (exit {result.exit_code}): {result.last_error}")


def continued_s(context: StageContext) -> float:
    """Return the seconds that a resumed pre-training counts as used already.

    A new session never continues an unfinished run of an earlier one: that is moved aside.

    Raises:
        LumiError: another living process trains there.
    """
    folder = context.cfg.work_dir / context.pretrain_dir
    if not RunFolder.is_in(folder):
        return 0.0
    run = RunFolder.read(folder)
    if run.is_finished:
        return 0.0
    if not run.is_of(context.folder):
        with one_writer(folder):
            move_aside(folder)
        return 0.0
    return max((float(line.get("time_s", 0.0)) for line in read_metrics(folder)), default=0.0)


def start_session(cfg: SessionConfig, tools: Tools = REAL) -> Session:
    """Run a new session from its first stage to its report and return it.

    Raises:
        LumiError: wrong settings, another session is running, or a stage failed.
    """
    overrides = {stage: check_flags(stage, dict(own)) for stage, own in cfg.flags.items()}
    for stage, own in stage_overrides(os.environ).items():
        overrides[stage] = {**overrides.get(stage, {}), **own}
    check_settings(cfg)
    refuse_second_session(cfg.runs_dir)
    session = Session.create(cfg, overrides)
    session.start_clock()
    Runner(session, Display(), tools).run()
    return session


def main(cfg: SessionConfig) -> None:
    """Run the session that the settings describe."""
    stop_request.install()
    start_session(cfg)


if __name__ == "__main__":
    sys.exit(run_stage(main, SessionConfig))
