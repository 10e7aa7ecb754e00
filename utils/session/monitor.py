"""Shows GPU, CPU, memory, disk and the running stage (`make monitor`), refreshed.

python -m utils.session.monitor [--once]

Reads lock files and metrics only: it can run beside any stage and disturbs none.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.live import Live
from rich.table import Table

from utils.checkout import CHECKPOINTS, PROCESSED, RESULTS, SESSIONS
from utils.config.machine import MonitorConfig
from utils.disk import free_bytes
from utils.lock import lock_owner
from utils.machine.facts import GB
from utils.machine.limits import memory_bytes, usable_cores
from utils.machine.nvidia import Card, cards
from utils.run_folder import METRICS_FILE
from utils.stage import run_stage

CPU_SAMPLE_S = 0.3
"""Time over which the processor's load is measured."""
TAIL_BYTES = 65_536
"""How much of a metrics file is read; a line is far shorter."""
LOCK_PLACES = (CHECKPOINTS, PROCESSED, SESSIONS, RESULTS)


@dataclass(frozen=True)
class Row:
    """One line of the display."""

    name: str
    text: str


def main(cfg: MonitorConfig) -> None:
    """Show the machine until Ctrl-C; one time where the output is no terminal."""
    console = Console()
    if cfg.once or not console.is_terminal:
        sys.stdout.write("".join(f"{row.name:<10} {row.text}\n" for row in look(cfg.root)))
        return
    try:
        with Live(table(look(cfg.root)), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(cfg.interval_s)
                live.update(table(look(cfg.root)), refresh=True)
    except KeyboardInterrupt:
        return


def look(root: Path) -> list[Row]:
    """Return what there is to see now."""
    return [*gpu_rows(), cpu_row(), memory_row(), disk_row(root), *stage_rows(root)]


def table(rows: list[Row]) -> Table:
    """Return the rows as a table for a terminal."""
    result = Table(
        title=f"{time.strftime('%H:%M:%S')}, Ctrl-C ends the display and nothing else",
        show_header=False,
        title_justify="left",
    )
    for row in rows:
        result.add_row(row.name, row.text)
    return result


def gpu_rows() -> list[Row]:
    """Return a row for each NVIDIA card, or one that says there is none."""
    rows = [Row(f"GPU {number}", card_text(card)) for number, card in enumerate(cards())]
    return rows or [Row("GPU", "none that an NVIDIA driver shows")]


def card_text(card: Card) -> str:
    """Return what a card does; what it does not tell is left out."""
    used, total = (value and value / GB for value in (card.used_bytes, card.memory_bytes))
    parts = (
        "" if card.busy_percent is None else f"{card.busy_percent} % busy",
        "" if used is None or total is None else f"{used:.1f} of {total:.1f} GB used",
        "" if card.celsius is None else f"{card.celsius} C",
        "" if card.milliwatts is None else f"{card.milliwatts / 1000:.0f} W",
    )
    return f"{card.name}: {', '.join(part for part in parts if part)}"


def cpu_row() -> Row:
    """Return the processor's load."""
    busy = psutil.cpu_percent(interval=CPU_SAMPLE_S)
    load = ", ".join(f"{value:.1f}" for value in psutil.getloadavg())
    return Row("CPU", f"{busy:.0f}% busy, {usable_cores()} cores, load {load}")


def memory_row() -> Row:
    """Return how much memory is used."""
    total, available = memory_bytes()
    return Row("memory", f"{(total - available) / GB:.1f} of {total / GB:.1f} GB used")


def disk_row(root: Path) -> Row:
    """Return how much of the disk is free."""
    return Row("disk", f"{free_bytes(root.absolute()) / GB:.1f} GB free in {root.absolute()}")


def stage_rows(root: Path) -> list[Row]:
    """Return a row for each folder that a living process writes, or one that says there is none."""
    rows = []
    for lock in sorted(lock for place in LOCK_PLACES for lock in (root / place).rglob(".lock-*")):
        if (holder := living_holder(lock)) is None:
            continue
        folder = lock.with_name(lock.name.removeprefix(".lock-"))
        text = f"{folder.relative_to(root).as_posix()}, {holder}"
        last = last_metrics(folder / METRICS_FILE)
        rows.append(Row("running", f"{text}: {describe(last)}" if last else text))
    return rows or [Row("running", "no stage (no process holds a lock)")]


def living_holder(lock: Path) -> str | None:
    """Return who holds a lock file and since when, or None for one that a crash left behind."""
    owner = lock_owner(lock)
    if owner is None or not owner.is_alive:
        return None
    if not owner.is_here:
        return f"process {owner.pid} on {owner.host}"
    return f"process {owner.pid} for {(time.time() - owner.born) / 60:.0f} min"


def last_metrics(path: Path) -> dict[str, Any] | None:
    """Return the newest whole record of a metrics file that has a step, or None."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict) and "step" in record and "event" not in record:
            return record
    return None


def describe(record: dict[str, Any]) -> str:
    """Return a metrics record as text: `step 120, loss 3.21, 5,400 tokens/s`."""
    parts = [f"step {record['step']}"]
    for key, text in (
        ("loss", "loss {:.3f}"),
        ("val_bpb", "{:.3f} bits per byte"),
        ("accuracy", "accuracy {:.0%}"),
        ("tokens_per_s", "{:,.0f} tokens/s"),
        ("time_s", "{:,.0f} s"),
    ):
        if isinstance(record.get(key), int | float):
            parts.append(text.format(record[key]))
    return ", ".join(parts)


if __name__ == "__main__":
    sys.exit(run_stage(main, MonitorConfig))
