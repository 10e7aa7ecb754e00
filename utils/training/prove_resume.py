"""Proves on this machine that a killed run loses nothing (make prove-resume).

A small run of stage 02 is trained once undisturbed, then again and again under kill -9 at random
moments and with a random number of steps between checkpoints. Each run that comes to its end must
have the bytes of the undisturbed one, and no kill may cost a checkpoint that was there. One process
imports torch and each life of a run is a fork of it, so that a kill costs what training costs.

Prints one JSON line: kills, runs, identical (of the runs), lost (kills after which a checkpoint was
gone or the run did not go on), corrupt (damaged checkpoints found), in_a_save (kills in the middle
of writing one), seconds, machine, versions.
"""

import contextlib
import importlib
import inspect
import json
import logging
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.checkout import SCRIPTS
from utils.config.pretrain import PretrainConfig
from utils.config.prove_resume import ProveResumeConfig
from utils.errors import LumiError
from utils.files import folder_damage, sha256_file
from utils.log import setup_logging
from utils.machine.limits import cpu_name, usable_cores
from utils.run_folder import RunFolder
from utils.stage import run_stage

TOY = dict(
    n_layer=2, d_model=64, n_head=4, d_ff=128, sequence_length=64, dropout=0.1, batch_size=4,
    gradient_accumulation_steps=2, max_steps=24, warmup_steps=4, eval_steps=8, eval_tokens=500,
    save_total_limit=2, compile=False, preflight=False, initialization="bigram",
)  # fmt: skip
MODULES = "argparse collections datetime json logging os pathlib random statistics string typing"
MOST_SAVE_STEPS = 6
POLL_S = 0.002

log = logging.getLogger(__name__)


@dataclass
class Tally:
    """What the kills have shown so far."""

    kills: int = 0
    runs: int = 0
    identical: int = 0
    lost: int = 0
    corrupt: int = 0
    in_a_save: int = 0
    """Kills that left a half-written or half-removed checkpoint behind."""

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, damaged or different."""
        return self.identical == self.runs > 0 and not self.lost and not self.corrupt


@dataclass
class Trial:
    """A run that is killed until it ends; its folder and what was seen in it."""

    cfg: PretrainConfig
    log_path: Path
    newest: int = -1
    """Step of the newest good checkpoint after the last kill."""
    train: Callable[[PretrainConfig], object] = field(
        default_factory=lambda: runpy.run_path(str(SCRIPTS / "02_pretrain.py"))["main"]
    )

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.cfg.output_dir / self.cfg.model_name

    def live(self, save_steps: int, until_s: float | None) -> bool:
        """Train in a process of its own, killed after `until_s`; return whether it was killed.

        Raises:
            LumiError: it ended by itself before its end.
        """
        pid = os.fork()
        if pid == 0:
            self._train(self.cfg.model_copy(update={"save_steps": save_steps}))
        try:
            status = _wait(pid, until_s)
        except BaseException:
            _kill(pid)
            raise
        if status is None:
            _kill(pid)
            return not self._is_finished()
        if status != 0:
            lines = self.log_path.read_text(encoding="utf-8").splitlines() or ["no output"]
            raise LumiError(f"the run ended with status {status}: {lines[-1]}: see make resume")
        return False

    def _train(self, cfg: PretrainConfig) -> None:
        """Train and leave the process."""
        status = 1
        try:
            with self.log_path.open("a", encoding="utf-8") as file:
                for stream in (sys.stdout, sys.stderr):
                    os.dup2(file.fileno(), stream.fileno())
            setup_logging()
            self.train(cfg)
            status = 0
        except LumiError as error:
            log.error("%s", error)
        finally:
            sys.stderr.flush()
            os._exit(status)

    def _is_finished(self) -> bool:
        """Return whether a kill came after all was done."""
        return RunFolder.is_in(self.folder) and RunFolder.read(self.folder).is_finished

    def hashes(self) -> list[str]:
        """Return the hashes of the final weights and optimizer state."""
        final = self.folder / "final"
        return [sha256_file(final / f"{name}.safetensors") for name in ("model", "optimizer")]

    def look(self, tally: Tally) -> None:
        """Count what the last kill has cost."""
        from utils.training.checkpoints.state import read_step

        tally.in_a_save += any(self.folder.glob(".*-*"))
        places = [*self.folder.glob("step_*"), *self.folder.glob("final")]
        damages = {place: folder_damage(place) for place in places}
        for damage in filter(None, damages.values()):
            log.error("after kill %d: %s", tally.kills, damage)
            tally.corrupt += 1
        steps = [read_step(place) for place, damage in damages.items() if damage is None]
        newest = max(steps, default=-1)
        if newest < self.newest:
            log.error("after kill %d: step %d was there and is gone", tally.kills, self.newest)
            tally.lost += 1
        self.newest = newest


def _wait(pid: int, until_s: float | None) -> int | None:
    """Return the exit status of a child, None when it still runs after `until_s` seconds."""
    ends = time.monotonic() + (600.0 if until_s is None else until_s)
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= ends:
            return None
        time.sleep(POLL_S)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def prove(cfg: ProveResumeConfig, folder: Path) -> Tally:
    """Train below `folder` under kills and return what they have shown.

    Raises:
        LumiError: the undisturbed run fails, or this system cannot fork.
    """
    if not hasattr(os, "fork"):
        raise LumiError("prove-resume needs a system that can fork: run it on Linux or macOS")
    data_dir = cfg.data_dir or make_data(folder)
    settings = PretrainConfig.build({**TOY, "data_dir": data_dir, "cpu": cfg.cpu, "seed": cfg.seed})
    _import_before_forks()
    draw, started, tally = random.Random(cfg.seed), time.monotonic(), Tally()
    whole = Trial(settings.model_copy(update={"output_dir": folder / "whole"}), folder / "log.txt")
    whole.live(draw.randint(1, MOST_SAVE_STEPS), None)
    expected, whole_s = whole.hashes(), time.monotonic() - started
    log.info("the undisturbed run took %.1f s; killing it %d times", whole_s, cfg.kills)

    def is_over() -> bool:
        used_s = time.monotonic() - started
        return tally.kills >= cfg.kills or (cfg.minutes is not None and used_s > 60 * cfg.minutes)

    while not is_over():
        trial = Trial(settings.model_copy(update={"output_dir": folder / "killed"}), whole.log_path)
        shutil.rmtree(trial.cfg.output_dir, ignore_errors=True)
        tally.runs += 1
        try:
            while trial.live(
                draw.randint(1, MOST_SAVE_STEPS),
                None if is_over() else draw.uniform(0, whole_s),
            ):
                tally.kills += 1
                trial.look(tally)
            tally.identical += trial.hashes() == expected
        except LumiError as error:
            log.error("after kill %d: %s", tally.kills, error)
            tally.lost += 1
    return tally


def make_data(folder: Path) -> Path:
    """Prepare a small data set of Python's own docstrings and return its folder.

    Raises:
        LumiError: stage 01 fails.
    """
    from utils.data.builtin.docstrings import extract_records

    with (folder / "texts.jsonl").open("w", encoding="utf-8") as file:
        for name in MODULES.split():
            code = inspect.getsource(importlib.import_module(name)).encode()
            for record in extract_records(code, name, "python"):
                file.write(json.dumps({"text": record.text}) + "\n")
    command = [sys.executable, str(SCRIPTS / "01_prepare_data.py")]
    command += ["--input_path", str(folder / "texts.jsonl"), "--output_dir", str(folder / "data")]
    command += ["--vocab_size", "600", "--train_ratio", "0.9", "--num_workers", "1"]
    command += ["--no_decontaminate"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.splitlines() or ["no output"]
        raise LumiError(f"preparing a text set failed ({lines[-1]}): pass --data_dir")
    return folder / "data"


def _import_before_forks() -> None:
    """Load what a run needs, without any use of it: threads and CUDA do not survive a fork."""
    import transformers.models.llama.modeling_llama  # noqa: F401

    import utils.training.reporting
    import utils.training.setup  # noqa: F401


def main(cfg: ProveResumeConfig) -> None:
    """Prove it and print the JSON line.

    Raises:
        LumiError: something was lost, damaged or different.
    """
    from utils.training.records.metrics import environment

    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="prove-resume-") as folder:
        tally = prove(cfg, Path(folder))
    facts: dict[str, Any] = {
        **vars(tally),
        "seconds": round(time.monotonic() - started, 1),
        "machine": f"{cpu_name()}, {usable_cores()} cores",
        "versions": environment()["versions"],
    }
    sys.stdout.write(json.dumps(facts) + "\n")
    if not tally.is_clean:
        raise LumiError(
            f"{tally.identical} of {tally.runs} runs identical, {tally.lost} checkpoints lost, "
            f"{tally.corrupt} damaged: do not trust resume on this machine (disk, memory) and "
            "report the line above"
        )


if __name__ == "__main__":
    sys.exit(run_stage(main, ProveResumeConfig))
