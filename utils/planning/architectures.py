"""Validates every model configuration: parameters, memory, FLOPs, peers (`validate-architecture`).

python -m utils.planning.architectures [--measure] [--output_path FILE]

`--measure` adds the tokens per second of real training steps on this machine.
"""

import json
import logging
import sys

from utils.config.machine import ArchitecturesConfig
from utils.errors import LumiError
from utils.files import write_atomic
from utils.machine.facts import GB, describe_machine
from utils.model.sizing import checkpoint_bytes, count_parameters, flops_per_token
from utils.planning.known_models import KNOWN_MODELS, KnownModel, nearest_known
from utils.planning.sizes import Size, all_sizes, step_bytes
from utils.planning.table import TOKENS_PER_PARAMETER, Record, table
from utils.stage import run_stage
from utils.words import count

COLUMNS = (
    ("model", "model"),
    ("shape", "shape"),
    ("parameters", "parameters"),
    ("without_embeddings", "w/o emb."),
    ("training_gb", "GB"),
    ("checkpoint_gb", "ckpt GB"),
    ("gflop_per_token", "GFLOP/tok"),
    ("optimal_tokens", "optimal tokens"),
    ("optimal_pflop", "PFLOP"),
    ("nearest_known_model", "nearest known model"),
)
KNOWN_COLUMNS = (
    ("model", "known model"),
    ("shape", "shape"),
    ("vocabulary", "vocabulary"),
    ("parameters", "parameters"),
    ("tokens", "tokens"),
    ("tokens_per_parameter", "per parameter"),
    ("source", "source"),
)
MEASURED_COLUMNS = (
    ("model", "model"),
    ("tokens_per_s", "tokens/s"),
    ("share_of_peak", "of peak"),
    ("hours_to_optimum", "h to optimum"),
    ("measured_with", "measured with"),
)

FAILED = "failed"
"""Beginning of the note of a measurement that broke off."""

log = logging.getLogger(__name__)


def main(cfg: ArchitecturesConfig) -> None:
    """Validate, measure if asked to, and write the table."""
    sizes = all_sizes(cfg.config_dir)
    records = [describe(size) for size in sizes]
    sys.stdout.write(table(records, COLUMNS))
    sys.stdout.write(
        f"optimal tokens: {TOKENS_PER_PARAMETER} per parameter (Hoffmann et al., 2022); "
        "GB: a training step with the batch size of the file; PFLOP: training to the optimum\n\n"
    )
    sys.stdout.write(table([describe_known(known) for known in KNOWN_MODELS], KNOWN_COLUMNS))
    if cfg.measure:
        _measure(cfg, sizes, records)
        sys.stdout.write("\n" + table(records, MEASURED_COLUMNS))
    if cfg.output_path is not None:
        text = json.dumps({"architectures": records, "format": 1}, indent=2)
        write_atomic(cfg.output_path, text + "\n")
        sys.stdout.write(f"written: {cfg.output_path}\n")
    if broken := [
        record for record in records if record.get("measured_with", "").startswith(FAILED)
    ]:
        raise LumiError(
            f"{broken[0]['model']} could not be measured: {broken[0]['measured_with']}: "
            "run `make check-env`"
        )


def describe(size: Size) -> Record:
    """Return the figures of one configuration that follow from its shape."""
    count, model = count_parameters(size.model), size.model
    optimum = TOKENS_PER_PARAMETER * count.total
    shared = f"/{model.num_key_value_heads}" if model.num_key_value_heads else ""
    return {
        "model": size.name,
        "shape": f"{model.n_layer} x {model.d_model}, {model.n_head}{shared} heads",
        "parameters": count.total,
        "without_embeddings": count.without_embeddings,
        "training_gb": round(step_bytes(size, size.training.batch_size) / GB, 2),
        "checkpoint_gb": round(checkpoint_bytes(model, size.training.optimizer) / GB, 2),
        "gflop_per_token": round(flops_per_token(model) / 1e9, 3),
        "optimal_tokens": optimum,
        "optimal_pflop": round(optimum * flops_per_token(model) / 1e15, 1),
        "nearest_known_model": compare(count.total),
    }


def compare(parameters: int) -> str:
    """Return how many times the size of the nearest published model this is."""
    known = nearest_known(parameters)
    ratio = parameters / known.parameters
    return f"{ratio:.2f} x {known.name} ({count(known.parameters)})"


def describe_known(known: KnownModel) -> Record:
    """Return the figures of a published model."""
    return {
        "model": known.name,
        "shape": known.shape,
        "vocabulary": known.vocab_size,
        "parameters": known.parameters,
        "tokens": round(known.tokens) if known.tokens else None,
        "tokens_per_parameter": round(known.tokens / known.parameters) if known.tokens else None,
        "source": f"{known.source}; {known.repository}",
    }


def _measure(cfg: ArchitecturesConfig, sizes: list[Size], records: list[Record]) -> None:
    """Add throughput to `records`, one size after the other."""
    from utils.machine.matmul_speed import gemm_rate
    from utils.planning.throughput import measure_apart

    machine = describe_machine(cpu=cfg.cpu)
    rate, precision = gemm_rate(machine.device, 1.0)
    log.info("matrix products: %.0f GFLOP/s in %s on %s", rate / 1e9, precision, machine.device)
    for size, record in zip(sizes, records, strict=True):
        log.info("measuring %s, at most %.0f s", size.name, cfg.max_seconds)
        found = measure_apart(size, machine, rate, cfg.max_seconds)
        speed = found.tokens_per_s
        work = flops_per_token(size.model)
        record["tokens_per_s"] = round(speed) if speed else None
        record["share_of_peak"] = round(speed * work / rate, 3) if speed else None
        optimum_h = record["optimal_tokens"] / speed / 3600 if speed else None
        record["hours_to_optimum"] = round(optimum_h, 1) if optimum_h else None
        record["measured_with"] = found.note


if __name__ == "__main__":
    sys.exit(run_stage(main, ArchitecturesConfig))
