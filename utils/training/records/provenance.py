"""What the bits of a run depend on beside settings and plan: code, versions, machine.

It is kept in each checkpoint, and what has changed is told on resume: a run goes on all the same,
but not to the bits that it would have had.
"""

import hashlib
import logging
import platform
from collections.abc import Mapping
from typing import Any

import torch

from utils.checkout import ROOT
from utils.machine.facts import package_versions
from utils.machine.limits import cpu_name

CODE = ("utils/training/**/*.py", "utils/model/*.py", "utils/data/tokens/*.py")
"""What a training step goes through."""
PACKAGES = ("torch", "transformers", "accelerate", "numpy")

log = logging.getLogger(__name__)


def provenance(device: torch.device) -> dict[str, Any]:
    """Return what the bits of a step on `device` depend on; code as path -> hash of its bytes."""
    files = sorted(path for pattern in CODE for path in ROOT.glob(pattern))
    is_cuda = device.type == "cuda"
    return {
        "code": {
            path.relative_to(ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:12]
            for path in files
        },
        "python": platform.python_version(),
        **package_versions(PACKAGES),
        "cuda": torch.version.cuda if is_cuda else None,
        "processor": torch.cuda.get_device_name(device) if is_cuda else cpu_name(),
        "threads": torch.get_num_threads(),
    }


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return one line for each key of `old` that has another value in `new`."""
    lines = []
    for name, value in old.items():
        if isinstance(value, dict):
            known = new.get(name, {})
            changed = [path for path in {**value, **known} if value.get(path) != known.get(path)]
            lines += [f"{name}: {', '.join(changed)} changed"] if changed else []
        elif value != new.get(name):
            lines.append(f"{name}: {value} -> {new.get(name)}")
    return lines


def announce(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Warn of each change that makes a resumed run end in other bits."""
    for line in changes(old, new):
        log.warning("not as before, so not the same bits: %s", line)
