"""Gathers the results of an evaluation and writes evaluation_results.json and report.md.

What cannot be measured is "not run" with the reason, never a number; an unexpected error
marks it "failed", what was measured is written, and the error goes on to the user.
"""

import json
import logging
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from utils.checkout import RESULTS
from utils.config.evaluate import EvaluateConfig
from utils.errors import ConfigError, Interrupted, LumiError
from utils.evaluation.measurements import Context, Measurement
from utils.evaluation.report import render
from utils.evaluation.smoke import read_prompts
from utils.files import MANIFEST, atomic_folder, move_aside, sha256_file, write_json
from utils.lock import one_writer
from utils.machine.facts import package_versions
from utils.model.checkpoints import LoadedModel

FORMAT = 1
RESULTS_FILE, REPORT_FILE, RECORDS_DIR = "evaluation_results.json", "report.md", "records"
PACKAGES = ("torch", "transformers", "tokenizers", "sentencepiece", "numpy")

log = logging.getLogger(__name__)


class Results:
    """Gathers what has been measured of a model, and what has not and why."""

    def __init__(self, cfg: EvaluateConfig, loaded: LoadedModel) -> None:
        self.folder = result_folder(cfg, loaded.folder)
        self.content: dict[str, Any] = {
            "format": FORMAT,
            "model": describe(loaded),
            "settings": cfg.resolved(),
            "environment": environment(loaded),
            "started": datetime.now().isoformat(timespec="seconds"),
            "results": {},
        }
        self.records: dict[str, list[dict[str, Any]]] = {}
        """Entries of single items, by measurement."""

    def expect(self, measurements: Sequence[Measurement]) -> None:
        """Note what is to be measured, as not run."""
        for one in measurements:
            entry = {"title": one.title, "status": "not run", "reason": "stopped before it"}
            self.content["results"][one.name] = entry

    def measure(self, measurement: Measurement, context: Context) -> None:
        """Run one measurement and note what came out."""
        entry = self.content["results"][measurement.name]
        started_s = time.monotonic()
        entry.update(status="failed", reason="an unexpected error, see the log")
        try:
            context.timer.begin()
            outcome = measurement.run(context)
        except Interrupted:
            entry.update(status="not run", reason="stopped by a signal")
            raise
        except LumiError as error:
            entry.update(status="not run", reason=str(error))
            log.warning("%s not run: %s", measurement.title, error)
            return
        del entry["reason"]
        entry.update(status="ok", source=outcome.source, measures=outcome.measures)
        entry["seconds"] = round(time.monotonic() - started_s, 1)
        self.records[measurement.name] = outcome.records
        log.info("%s measured in %.1f s", measurement.title, entry["seconds"])

    def write(self, *, keep_all: bool) -> None:
        """Write the result folder whole; an earlier result in its place is moved aside."""
        with one_writer(self.folder):
            move_aside(self.folder)
            with atomic_folder(self.folder, kind="evaluation") as folder:
                write_json(folder / RESULTS_FILE, self.content)
                report = render(self.content, self.records.get("smoke", []))
                (folder / REPORT_FILE).write_text(report, encoding="utf-8")
                (folder / RECORDS_DIR).mkdir()
                for name, rows in self.records.items():
                    if rows and (keep_all or name == "smoke"):
                        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
                        path = folder / RECORDS_DIR / f"{name}.jsonl"
                        path.write_text("".join(lines), encoding="utf-8")


@contextmanager
def recorded_results(
    cfg: EvaluateConfig, loaded: LoadedModel, measurements: Sequence[Measurement]
) -> Iterator[Results]:
    """Yield the results of a model, and write what is there when the block ends, however it does.

    Raises:
        Interrupted: a signal arrived; what was measured so far is written.
    """
    results = Results(cfg, loaded)
    results.expect(measurements)
    started_s = time.monotonic()
    try:
        yield results
    except Interrupted as error:
        raise Interrupted(f"evaluation stopped: results so far are in {results.folder}") from error
    finally:
        results.content["seconds"] = round(time.monotonic() - started_s, 1)
        results.write(keep_all=cfg.detailed_output)


def check_paths(cfg: EvaluateConfig) -> None:
    """Check what was asked for by name, before minutes are spent.

    Raises:
        ConfigError: a path that was given does not exist, or the output folder is in use.
    """
    for name in ("data_dir", "corpus_dir"):
        folder = getattr(cfg, name)
        if folder is not None and not folder.is_dir():
            raise ConfigError(f"--{name} {folder} is no folder: check the path")
    read_prompts(cfg.custom_prompts)
    folder = named_folder(cfg)
    if folder is None or not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"--output_dir {folder} is a file: pass a folder")
    if any(folder.iterdir()) and not (folder / RESULTS_FILE).is_file():
        raise ConfigError(f"--output_dir {folder} holds other files: pass a new or empty folder")


def named_folder(cfg: EvaluateConfig) -> Path | None:
    """Return the result folder that the settings name; an earlier result in it is moved aside."""
    if cfg.run_name is not None:
        return (cfg.output_dir or RESULTS) / cfg.run_name
    return cfg.output_dir


def result_folder(cfg: EvaluateConfig, model: Path) -> Path:
    """Return the folder that the settings name, or a new one below evaluation/results."""
    if (named := named_folder(cfg)) is not None:
        return named.resolve()
    name = f"{model_label(model)}-{datetime.now():%Y%m%d-%H%M%S}"
    target, count = RESULTS / name, 1
    while target.exists():
        count += 1
        target = RESULTS / f"{name}-{count}"
    return target


def model_label(folder: Path) -> str:
    """Return a short name: checkpoints/pretrain/tiny/step_20 is tiny-step_20, .../final is tiny."""
    folder = folder.resolve()
    if folder.name == "final":
        return folder.parent.name
    if folder.name == "best" or folder.name.startswith("step_"):
        return f"{folder.parent.name}-{folder.name}"
    return folder.name


def describe(loaded: LoadedModel) -> dict[str, Any]:
    """Return what identifies the model."""
    manifest = loaded.folder / MANIFEST
    return {
        "name": model_label(loaded.folder),
        "folder": loaded.folder.as_posix(),
        "manifest_sha256": sha256_file(manifest) if manifest.is_file() else None,
        "type": loaded.model.config.model_type,
        "parameters": loaded.model.num_parameters(),
        "vocab_size": int(loaded.model.config.vocab_size),
        "context_length": loaded.context_length,
        "stage": loaded.card.get("stage"),
        "template": loaded.card.get("template"),
        "dataset": loaded.card.get("dataset"),
        "tokenizer_sha256": loaded.card.get("tokenizer_sha256"),
    }


def environment(loaded: LoadedModel) -> dict[str, Any]:
    """Return versions and device, which decide the last digits."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(loaded.device),
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        **package_versions(PACKAGES),
    }
