"""A toy run of stage 02 without its process: the loop of the script, step by step."""

import hashlib

from utils.config.pretrain import PretrainConfig
from utils.time_box import Clock
from utils.training.devices.processes import Processes
from utils.training.inputs import find_inputs
from utils.training.run import open_run
from utils.training.setup import build_trainer

TOY = dict(
    n_layer=1, d_model=32, n_head=2, d_ff=48, vocab_size=600, sequence_length=32, batch_size=4,
    gradient_accumulation_steps=2, warmup_steps=2, save_steps=4, save_total_limit=24,
    eval_tokens=400, max_steps=12, compile=False, preflight=False, cpu=True,
)  # fmt: skip


def settings(data_dir, output_dir, **changes):
    return PretrainConfig(**(TOY | dict(data_dir=data_dir, output_dir=output_dir) | changes))


def train(cfg, on_step=lambda trainer: None):
    """Train to the end and return the trainer; `on_step` comes after each step, before a save."""
    with open_run(find_inputs(cfg)) as run:
        trainer = build_trainer(run, Processes(cpu=True), Clock())
        for step in trainer.steps():
            on_step(trainer)
            if step % cfg.save_steps == 0 and step != trainer.total:
                trainer.saver.save(f"step_{step}")
        trainer.metrics.close()
        run.record.end("finished")
    return trainer


def bits(trainer):
    """Hash of weights and optimizer state."""
    digest = hashlib.sha256()
    tensors = {**trainer.model.state_dict(), **trainer.optimizers.tensors()}
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].detach().float().numpy().tobytes())
    return digest.hexdigest()
