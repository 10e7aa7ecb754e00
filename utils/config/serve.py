"""Settings of stage 06."""

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from utils.config.base import StageConfig
from utils.config.kinds import CommandLine, NoVariable


class ServeConfig(StageConfig):
    """Talk to a checkpoint in the terminal or over HTTP."""

    model_path: Path = Path("checkpoints/dpo")
    """Checkpoint or run folder to serve."""
    mode: NoVariable[Literal["interactive", "api"]] = "interactive"
    """A chat in the terminal, or an HTTP server."""
    template: CommandLine[Literal["chatml", "instruct", "chat"] | None] = None
    """Layout of a conversation; the one the model was fine-tuned with when unset."""
    system_prompt: str | None = None
    """System message at the start of each conversation."""
    temperature: float = Field(0.0, ge=0, le=5)
    """0 picks the likeliest token; higher values sample more freely."""
    top_p: float = Field(0.95, gt=0, le=1)
    """Sample among the likeliest tokens that hold this much probability."""
    top_k: int = Field(0, ge=0)
    """Sample among this many likeliest tokens (0: no limit)."""
    max_new_tokens: PositiveInt = 150
    """Longest answer, in tokens."""
    host: CommandLine[str] = "127.0.0.1"
    """Address to listen on; only loopback addresses are accepted."""
    port: CommandLine[int] = Field(8000, ge=0, le=65535)
    """Port to listen on (0: any free one)."""
    request_timeout_s: PositiveFloat = 120.0
    """Seconds after which an answer over HTTP is cut off."""
    cpu: CommandLine[bool] = False
    """Run on the CPU even where there is a GPU."""
    seed: int | None = None
    """Seeds sampling; unset means a new seed each time."""
