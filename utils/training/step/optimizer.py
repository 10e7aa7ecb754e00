"""NorMuon or Muon for the matrices of the decoder blocks, AdamW for embeddings and norms.

The fast forms (AdamW in one pass, Muon over stacks of matrices) can be switched off by
`fused_optimizer`, but for NorMuon and for sharded matrices, which have one form; state has the same
names in all.

Reference: Muon (Jordan et al., 2024); NorMuon (Li et al., 2025); AdamW (Loshchilov and Hutter,
2019).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from utils.config.pretrain import PretrainConfig
from utils.errors import CheckpointError
from utils.training.devices.fsdp import is_sharded, whole
from utils.training.step.muon import BatchedMuon
from utils.training.step.sharded_muon import ShardedMuon

BETAS = (0.9, 0.95)
MOMENT_DECAY = 0.95
"""Of NorMuon's second moments (beta2 of its authors)."""
STATE = {
    "adamw": ("step", "exp_avg", "exp_avg_sq"),
    "muon": ("momentum_buffer",),
    "normuon": ("momentum_buffer", "second_moment"),
}


class Member(NamedTuple):
    """One of the torch optimizers that step together."""

    optimizer: Optimizer
    peak_rate: float
    state: tuple[str, ...]
    """Names of the state of a parameter."""


@dataclass
class Optimizers:
    """One or two torch optimizers that step together; state is addressed by parameter name."""

    names: dict[Tensor, str]
    members: tuple[Member, ...]

    @classmethod
    def build(
        cls, model: nn.Module, cfg: PretrainConfig, muon_dtype: torch.dtype = torch.float32
    ) -> "Optimizers":
        """Sort the parameters of `model` by `cfg.optimizer`; only block matrices decay.

        Both Muons orthogonalize in `muon_dtype` (torch's own, "muon" without
        `cfg.fused_optimizer`, in bf16).
        """
        names: dict[Tensor, str] = {tensor: name for name, tensor in model.named_parameters()}
        is_matrix = {n: ".layers." in n and p.ndim == 2 for n, p in model.named_parameters()}
        matrices = [p for name, p in model.named_parameters() if is_matrix[name]]
        others = [p for name, p in model.named_parameters() if not is_matrix[name]]
        device = next(iter(names)).device
        fused = cfg.fused_optimizer and device.type in ("cpu", "cuda")
        groups = [{"params": others, "weight_decay": 0.0}]
        if cfg.optimizer == "adamw":
            groups.append({"params": matrices, "weight_decay": cfg.weight_decay})
        adamw = AdamW(groups, lr=cfg.learning_rate, betas=BETAS, fused=fused)
        members = [Member(adamw, cfg.learning_rate, STATE["adamw"])]
        if cfg.optimizer != "adamw":
            muon = _muon(matrices, muon_dtype, cfg, sharded=is_sharded(model))
            members.append(Member(muon, cfg.muon_learning_rate, STATE[cfg.optimizer]))
        return cls(names, tuple(members))

    def step(self, factor: float) -> None:
        """Update the weights at `factor` times the peak learning rates and drop the gradients."""
        for member in self.members:
            for group in member.optimizer.param_groups:
                group["lr"] = member.peak_rate * factor
            member.optimizer.step()
        self.drop_gradients()

    def drop_gradients(self) -> None:
        """Free the gradients of the weights."""
        for member in self.members:
            member.optimizer.zero_grad(set_to_none=True)

    def forget(self) -> None:
        """Be as before the first step."""
        self.drop_gradients()
        for member in self.members:
            member.optimizer.state.clear()

    def tensors(self) -> dict[str, Tensor]:
        """Return the whole state as `parameter name:key` -> tensor."""
        return {
            f"{self.names[parameter]}:{key}": value
            for member in self.members
            for parameter, state in member.optimizer.state.items()
            for key, value in state.items()
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `tensors` returned.

        Raises:
            CheckpointError: the state belongs to other parameters or to another optimizer.
        """
        left = dict(tensors)
        for member, parameter in self._owned():
            for key in member.state:
                name = f"{self.names[parameter]}:{key}"
                if name not in left:
                    raise CheckpointError(
                        f"optimizer state lacks {name}: resume with the same --optimizer and model"
                    )
                member.optimizer.state[parameter][key] = left.pop(name).to(parameter.device)
        if left:
            raise CheckpointError(
                f"optimizer state has {next(iter(left))}, which this run lacks: resume with the "
                "same --optimizer and model"
            )

    def _owned(self) -> Iterator[tuple[Member, nn.Parameter]]:
        for member in self.members:
            for group in member.optimizer.param_groups:
                for parameter in group["params"]:
                    yield member, parameter


def _muon(
    matrices: list[nn.Parameter], dtype: torch.dtype, cfg: PretrainConfig, *, sharded: bool
) -> Muon:
    options: dict[str, Any] = {
        "lr": cfg.muon_learning_rate,
        "momentum": cfg.muon_momentum,
        "weight_decay": cfg.weight_decay,
    }
    is_plain = cfg.optimizer == "muon"
    if is_plain and not sharded and not cfg.fused_optimizer:
        return Muon(matrices, **options)
    form = ShardedMuon if sharded else BatchedMuon
    return form(matrices, dtype=dtype, moment_decay=None if is_plain else MOMENT_DECAY, **options)


def clip_gradients(model: nn.Module, max_norm: float) -> Tensor:
    """Scale the gradients down to `max_norm` at most; return the norm they had."""
    return whole(torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm))
