"""Settings of `make prove-resume`."""

from pathlib import Path

from pydantic import PositiveFloat, PositiveInt

from utils.config.base import StageConfig
from utils.config.kinds import CommandLine


class ProveResumeConfig(StageConfig):
    """Kill a small training run at random moments and compare what comes out."""

    kills: PositiveInt = 20
    """Times that the run is killed (kill -9)."""
    minutes: PositiveFloat | None = None
    """Time after which no further kill is tried."""
    data_dir: Path | None = None
    """Prepared folder to train on; a small one is made of Python's own docstrings when unset."""
    cpu: CommandLine[bool] = False
    """Train on the CPU even where there is a GPU."""
    seed: int = 42
    """Draws the moments of the kills and the steps between checkpoints."""
