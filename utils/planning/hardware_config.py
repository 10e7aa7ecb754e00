"""Writes the pre-training settings that the plan would choose for a GPU (`make config-rtx4090`).

python -m utils.planning.hardware_config --gpu_name rtx4090 --vram_gb 24

The global batch of config/SIZE.json stays; the micro-batch is the largest one whose estimated step
fits into the memory, so that the fewest micro-steps are taken.
"""

import sys
from pathlib import Path
from typing import Any

from utils.config.machine import HardwareConfig
from utils.config.pretrain import PretrainConfig
from utils.errors import BudgetError
from utils.files import write_json
from utils.machine.facts import GB
from utils.model.sizing import count_parameters
from utils.planning.sizes import Size, largest_batch, read_size, standard_sizes, step_bytes
from utils.stage import run_stage
from utils.words import count


def main(cfg: HardwareConfig) -> None:
    """Write a settings file for each size that fits, and say what was chosen.

    Raises:
        BudgetError: not even the smallest size fits.
    """
    limit = cfg.vram_gb * GB
    sys.stdout.write(f"{cfg.gpu_name}, {cfg.vram_gb:g} GB, bf16, compiled blocks\n")
    written = []
    for size in standard_sizes(cfg.config_dir)[1:]:  # the smallest is for slow processors
        settings = settings_for(size, limit)
        if settings is None:
            needed = step_bytes(size, 1, gpu=True) / GB
            sys.stdout.write(f"{size.name}: does not fit: one row needs {needed:.1f} GB\n")
            continue
        path = cfg.output_dir / f"{cfg.gpu_name}_{size.name}.json"
        write_json(path, {"_description": f"{size.name} for {cfg.gpu_name}", **settings})
        sys.stdout.write(f"{describe(read_size(path))}\n")
        written.append(path)
    if not written:
        raise BudgetError(f"no size fits into {cfg.vram_gb:g} GB: pass a larger --vram_gb")
    sys.stdout.write(f"train: python scripts/02_pretrain.py --config {written[0]}\n")


def settings_for(size: Size, limit_bytes: float) -> dict[str, Any] | None:
    """Return the settings with micro-batch and accumulation for a memory, or None.

    The product of the two is the one of the configuration, rounded up to whole micro-batches.
    """
    training = size.training
    rows = training.batch_size * training.gradient_accumulation_steps
    batch = largest_batch(size, limit_bytes, rows, gpu=True)
    if not batch:
        return None
    settings = {
        **size.values,
        "batch_size": batch,
        "gradient_accumulation_steps": -(-rows // batch),
        "bf16": True,
        "compile": True,
        "flash_attn": True,
    }
    PretrainConfig.build(settings, "generated settings")
    return settings


def describe(size: Size) -> str:
    """Return one line about generated settings."""
    training = size.training
    batch, steps = training.batch_size, training.gradient_accumulation_steps
    tokens = batch * steps * (training.max_length or training.sequence_length)
    return (
        f"{Path(size.path)}: {count(count_parameters(size.model).total)} parameters, "
        f"batch_size {batch} x gradient_accumulation_steps {steps} = {tokens:,} tokens a step, "
        f"about {step_bytes(size, batch, gpu=True) / GB:.1f} GB"
    )


if __name__ == "__main__":
    sys.exit(run_stage(main, HardwareConfig))
