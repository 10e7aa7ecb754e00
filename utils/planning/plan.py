"""Says what this machine can train before anything runs: size x tokens x time x memory x disk.

python -m utils.planning.plan [--model_configs FILE...] [--no_measure] [--output_path FILE]

Tokens per second come from a few real training steps of each size (uncompiled: compiling would take
longer than the whole plan); a size too slow for its share of the minute is estimated from the share
of the peak that the others reach.
"""

import json
import logging
import sys
from collections.abc import Sequence

from utils.config.machine import PlanConfig
from utils.files import write_atomic
from utils.machine.facts import Machine, describe_machine
from utils.machine.matmul_speed import gemm_rate
from utils.planning.model_choice import UTILISATION
from utils.planning.sizes import Size, read_size, standard_sizes
from utils.planning.table import (
    TOKENS_PER_PARAMETER,
    Record,
    cell,
    compute_line,
    fit,
    machine_lines,
    table,
)
from utils.planning.throughput import Throughput, measure_together
from utils.stage import run_stage
from utils.words import duration, percent

BOXES = (("30 min", 1800), ("2 h", 7200), ("4 h", 14_400), ("24 h", 86_400), ("1 week", 604_800))
"""Times whose tokens are told, in seconds."""
GEMM_S = 1.0
CPU_TOKENS = 1024
"""Tokens of a measured step on a CPU, one row at least: few, so that larger sizes get a turn."""
FIT_COLUMNS = (
    ("model", "size"),
    ("parameters", "parameters"),
    ("micro_batch", "micro-batch"),
    ("memory_gb", "memory GB"),
    ("checkpoint_gb", "checkpoint GB"),
    ("disk_gb", "disk of a run GB"),
    ("fits", "fits"),
)
TIME_COLUMNS = (
    ("model", "size"),
    ("tokens_per_s", "tokens/s"),
    *((f"tokens_in_{name.replace(' ', '_')}", name) for name, _ in BOXES),
    ("optimal_tokens", "optimum"),
    ("time_to_optimum", "time for it"),
    ("how", "tokens/s are"),
)

log = logging.getLogger(__name__)


def main(cfg: PlanConfig) -> None:
    """Measure, and write the plan."""
    sizes = [*standard_sizes(cfg.config_dir), *map(read_size, cfg.model_configs)]
    machine = describe_machine(cfg.output_dir, cpu=cfg.cpu)
    rate, precision = gemm_rate(machine.device, GEMM_S)
    lines = [*machine_lines(machine), compute_line(machine, rate, precision)]
    sys.stdout.write("".join(f"{name:<9} {text}\n" for name, text in lines) + "\n")
    records = [fit(size, machine) for size in sizes]
    speeds(cfg, sizes, machine, rate, records)
    for record in records:
        times(record)
    sys.stdout.write(report(records))
    if cfg.output_path is not None:
        plan = {"format": 1, "machine": machine.as_json(), "peak_flops": rate, "sizes": records}
        write_atomic(cfg.output_path, json.dumps(plan, indent=2) + "\n")
        sys.stdout.write(f"written: {cfg.output_path}\n")


def speeds(
    cfg: PlanConfig, sizes: Sequence[Size], machine: Machine, rate: float, records: Sequence[Record]
) -> None:
    """Add tokens per second to `records`: measured, else estimated from what was measured."""
    found = [Throughput(None, "not asked for")] * len(sizes)
    if cfg.measure:
        log.info("measuring real training steps, at most %.0f s", cfg.max_seconds)
        found = measure_together(sizes, machine, rate, cfg.max_seconds, CPU_TOKENS)
    share, source = UTILISATION[machine.device], "usual share"
    for size, record, one in zip(sizes, records, found, strict=True):
        if one.tokens_per_s is not None:
            share, source = one.tokens_per_s * record["flops_per_token"] / rate, size.name
            record |= {"tokens_per_s": round(one.tokens_per_s), "how": f"measured, {one.note}"}
            continue
        if cfg.measure:
            log.info("%s: %s", size.name, one.note)
        how = f"estimated, {percent(share, 0)} of the peak ({source})"
        record |= {"tokens_per_s": round(share * rate / record["flops_per_token"]), "how": how}


def times(record: Record) -> None:
    """Add the tokens of each box, and the optimum and the time it takes."""
    speed = record["tokens_per_s"]
    for name, seconds in BOXES:
        record[f"tokens_in_{name.replace(' ', '_')}"] = round(speed * seconds)
    record["optimal_tokens"] = TOKENS_PER_PARAMETER * record["parameters"]
    record["seconds_to_optimum"] = round(record["optimal_tokens"] / max(speed, 1e-9))
    record["time_to_optimum"] = duration(record["seconds_to_optimum"])


def report(records: Sequence[Record]) -> str:
    """Return the two tables and what their words mean."""
    fitting = [record for record in records if record["fits"] == "yes"]
    lines = [
        table(list(records), FIT_COLUMNS),
        "\n",
        table(list(records), TIME_COLUMNS),
        f"optimum: {TOKENS_PER_PARAMETER} tokens per parameter (Hoffmann et al., 2022); "
        "a run compiles its blocks where that pays and is then faster\n",
    ]
    if fitting:
        best = max(fitting, key=_reach)
        lines.append(
            f"largest optimum within a week: {best['model']}, {cell(best['optimal_tokens'])} "
            f"tokens in {best['time_to_optimum']}: make pretrain-{best['model']}\n"
            if best["seconds_to_optimum"] <= BOXES[-1][1]
            else "no size reaches its optimum within a week; a session takes what its time allows\n"
        )
    return "".join(lines)


def _reach(record: Record) -> tuple[bool, int]:
    """Rank a size: does it get to its optimum within a week, and how large is it."""
    return record["seconds_to_optimum"] <= BOXES[-1][1], record["parameters"]


if __name__ == "__main__":
    sys.exit(run_stage(main, PlanConfig))
