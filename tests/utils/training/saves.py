"""A toy run for tests of saving: a model of 4,000 weights, its optimizer, and its `Saver`."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch

from utils.config.pretrain import PretrainConfig
from utils.model.architecture import build_model
from utils.time_box import Clock
from utils.training.checkpoints.state import TrainState
from utils.training.checkpoints.writer import Writer
from utils.training.saving import Saver
from utils.training.schedule.plan import Plan
from utils.training.step.optimizer import Optimizers

TOY = dict(n_layer=1, d_model=16, n_head=2, d_ff=32, vocab_size=600, sequence_length=64)
CARD = {"stage": "pretrain", "template": None, "tokenizer_sha256": "0"}


def toy_parts(seed=42, **changes):
    """(model, optimizers) after one step."""
    cfg = PretrainConfig(**TOY | changes)
    model = build_model(cfg, seed=seed)
    optimizers = Optimizers.build(model, cfg)
    train(model, optimizers)
    return model, optimizers


def train(model, optimizers):
    ids = torch.arange(4, 20)[None]
    model(ids, labels=ids).loss.backward()
    optimizers.step(1.0)


@dataclass
class ToyRun:
    """What a `Saver` needs of a run."""

    folder: Path
    tokenizer_dir: Path
    cfg: PretrainConfig
    writer: Writer

    def card(self):
        return CARD


def toy_saver(folder, tokenizer_dir, box=None, **settings):
    """A saver over a trained toy; `settings` are those of pre-training."""
    model, optimizers = toy_parts(**settings)
    run = ToyRun(folder, tokenizer_dir, PretrainConfig(**TOY | settings), Writer())
    one = SimpleNamespace(is_main=True, wait=lambda: None, share=lambda value: value)
    plan = Plan(folder / "plan.json", 10, 0.5)
    return Saver(run, one, model, optimizers, TrainState(step=1), plan, Clock(), box)


def go_on(saver, step):
    """Train one step and call it `step`."""
    train(saver.model, saver.optimizers)
    saver.state.step = step
