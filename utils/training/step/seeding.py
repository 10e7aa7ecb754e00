"""Random numbers as pure functions of where training is: no generator state is ever saved."""

import hashlib
import os

import torch


def seed_for(*where: int | str) -> int:
    """Return a 63-bit seed for a place such as (seed, "dropout", step, micro-step)."""
    digest = hashlib.sha256("/".join(map(str, where)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def seed_step(seed: int, step: int, micro_step: int) -> None:
    """Seed torch (dropout is all that draws) for one micro-step; micro-steps count all ranks."""
    torch.manual_seed(seed_for(seed, "dropout", step, micro_step))


def make_deterministic() -> None:
    """Make CUDA give the same bits for the same work (slower); a CPU does so anyway."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.environ.setdefault("FLASH_ATTENTION_DETERMINISTIC", "1")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
