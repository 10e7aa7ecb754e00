"""Settings of the small commands about this machine and its files."""

from pathlib import Path

from pydantic import Field, PositiveFloat

from utils.config.base import StageConfig
from utils.config.kinds import CommandLine


class CheckEnvConfig(StageConfig):
    """Say in eleven lines what this machine is and which sizes it can train."""

    config_dir: Path = Path("config")
    """Folder with nano.json, tiny.json, small.json and base.json."""
    measure_seconds: float = Field(1.0, gt=0, le=60)
    """Seconds spent on measuring how fast this machine multiplies matrices."""
    cpu: bool = False
    """Look at the CPU even where there is a GPU."""


class PlanConfig(StageConfig):
    """Say what this machine can train: size, tokens, time, memory and disk."""

    config_dir: Path = Path("config")
    """Folder with nano.json, tiny.json, small.json and base.json."""
    model_configs: tuple[Path, ...] = ()
    """More model configurations to plan for."""
    measure: bool = True
    """Take a few real training steps of each size, else estimate from matrix products alone."""
    max_seconds: PositiveFloat = 50.0
    """Seconds for all measurements together; sizes that do not fit in are estimated."""
    output_dir: Path = Path("checkpoints/pretrain")
    """Where runs will write: its free space counts."""
    output_path: Path | None = None
    """Also write the plan as JSON into this file."""
    cpu: CommandLine[bool] = False
    """Plan for the CPU even where there is a GPU."""


class ArchitecturesConfig(StageConfig):
    """Validate every model configuration: parameters, memory, FLOPs, optimal tokens, peers."""

    config_dir: Path = Path("config")
    """Folder whose *.json files that describe a model are validated."""
    measure: bool = False
    """Also measure tokens per second of a real training step on this machine."""
    max_seconds: PositiveFloat = 120.0
    """Longest measurement of one size, in seconds; a size that needs more is skipped and named."""
    output_path: Path | None = None
    """Also write the figures as JSON into this file."""
    cpu: bool = False
    """Measure on the CPU even where there is a GPU."""


class MonitorConfig(StageConfig):
    """Show GPU, CPU, memory, disk and the running stage, refreshed until Ctrl-C."""

    once: bool = False
    """Show it one time and end (always so where the output is no terminal)."""
    interval_s: float = Field(2.0, ge=0.2)
    """Seconds between two looks."""
    root: Path = Path()
    """Folder that holds data/ and checkpoints/."""


class BackupConfig(StageConfig):
    """Copy the configurations and the final checkpoints into backups/DATE."""

    config_dir: Path = Path("config")
    """Folder with the configurations."""
    checkpoints_dir: Path = Path("checkpoints")
    """Folder that is searched for final/ and adapter/ folders."""
    backups_dir: Path = Path("backups")
    """Parent of the new folder."""


class HardwareConfig(StageConfig):
    """Write the pre-training settings that the plan would choose for a GPU."""

    gpu_name: str = "rtx4090"
    """Name of the card; the files are <gpu_name>_<size>.json."""
    vram_gb: PositiveFloat = 24.0
    """Memory of the card in GB."""
    config_dir: Path = Path("config")
    """Folder with the model configurations tiny, small and base."""
    output_dir: Path = Path("config/generated")
    """Folder the settings are written into."""
