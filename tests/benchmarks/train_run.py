"""One contender of `tests.benchmarks.train` in a process of its own: builds, trains, is paced.

    python -m tests.benchmarks.train_run '{"name": "ours", "device": "cpu", ...}'

After two steps of warming up it prints a JSON line, and then trains for as many seconds as each
line of its input says and prints what it did in them. An empty line ends it. On a CPU seconds are
those of the processor, on a GPU of the clock.
"""

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from utils.config.model import ModelConfig
from utils.config.pretrain import PretrainConfig
from utils.data.tokens.rows import PackedDataset
from utils.data.tokens.shards import Encoded, SplitWriter, format_keys
from utils.files import write_manifest
from utils.machine.precision import choose_matmul_precision, is_bf16_faster
from utils.model.architecture import build_model, decoder_config
from utils.tokenizers.control_tokens import ControlIds

WARM_UP = 2
GEMM = 2048
LEARNING_RATE = 3e-4


@dataclass(frozen=True)
class Task:
    """What a contender is to train."""

    name: str
    device: str
    model: dict[str, int]
    """n_layer, d_model, n_head, d_ff, vocab_size."""
    length: int
    rows: int
    folder: str
    """Prepared data, made by `toy_folder`."""
    work: str
    optimizer: str = "normuon"
    """Ours only; the others have theirs."""
    peer: str = ""
    """Checkout of a peer."""
    settings: tuple[tuple[str, Any], ...] = ()
    """Further settings of ours."""

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.length * self.rows

    def config(self) -> ModelConfig:
        """Return the shape as settings."""
        return ModelConfig(**self.model, sequence_length=self.length)


class OverError(Exception):
    """The parent wants no more."""


class Pace:
    """Called after each step: trains in slices as the parent asks and tells what was done."""

    def __init__(self, device: str, out: TextIO) -> None:
        self.is_cuda, self.out = device == "cuda", out
        self.warm_up, self.limit_s = WARM_UP, 0.0
        self.imports_mb = psutil.Process().memory_info().rss / 1e6
        self._restart()

    def __call__(self) -> None:
        """Count a step; at the end of a slice report and wait.

        Raises:
            OverError: there is no further slice.
        """
        self.steps += 1
        self.warm_up = max(0, self.warm_up - 1)
        if self.warm_up or self._used_s() < self.limit_s:
            return
        self._report()
        line = sys.stdin.readline().strip()
        if not line:
            raise OverError
        self.limit_s = float(line)
        self._restart()

    def _restart(self) -> None:
        self.steps, self.wall, self.cpu = 0, time.perf_counter(), time.process_time()

    def _used_s(self) -> float:
        return time.perf_counter() - self.wall if self.is_cuda else time.process_time() - self.cpu

    def _report(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize()
            peak_mb = torch.cuda.max_memory_allocated() / 1e6
        else:  # ru_maxrss is in KiB
            peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1.024e-3
            peak_mb -= self.imports_mb
        cpu_s, wall_s = time.process_time() - self.cpu, time.perf_counter() - self.wall
        found = {"steps": self.steps, "cpu_s": cpu_s, "wall_s": wall_s, "peak_mb": peak_mb}
        self.out.write(json.dumps(found) + "\n")
        self.out.flush()


def toy_folder(folder: Path, vocab_size: int, length: int) -> Path:
    """Write a prepared folder of ids in a Zipf-like distribution and return it."""
    chance = np.random.default_rng(0)
    ids = (chance.zipf(1.2, 400 * length) % (vocab_size - 4) + 4).astype("<u2")
    lengths = np.full(400, length)
    row = json.dumps({"id": "0", "text": "x" * 4 * length, "source": "toy"}).encode() + b"\n"
    splits = {}
    for split, count in (("train", 400), ("val", 4)):
        with SplitWriter(folder, split, 10**9, "none") as writer:
            size = lengths[:count]
            writer.write(Encoded([row] * count, ids[: count * length], size, 4 * size))
        splits[split] = writer.summary
    keys = {**format_keys("none"), "kind": "dataset", "token_dtype": "uint16", "name": "toy"}
    keys |= {"vocab_size": vocab_size, "sequence_length": length, "tokenizer_sha256": "0" * 64}
    write_manifest(folder, **keys, splits=splits)
    return folder


# --- contenders ---------------------------------------------------------------------------------


def ours(task: Task, pace: Pace) -> None:
    """The training step of stage 02, as its script takes it."""
    from utils.time_box import Clock
    from utils.training.devices.processes import Processes
    from utils.training.inputs import find_inputs
    from utils.training.run import open_run
    from utils.training.setup import build_trainer

    cfg = PretrainConfig.build(
        task.model
        | dict(model_name="ours", sequence_length=task.length, data_dir=task.folder)
        | dict(output_dir=f"{task.work}/{os.getpid()}", max_steps=10**7, save_steps=10**7)
        | dict(batch_size=task.rows, gradient_accumulation_steps=1, eval_tokens=2 * task.length)
        | dict(optimizer=task.optimizer, preflight=False, cpu=task.device == "cpu")
        | dict(task.settings)
    )
    with open_run(find_inputs(cfg)) as run:
        trainer = build_trainer(run, Processes(cpu=cfg.cpu), Clock())
        for _ in trainer.steps():
            pace()


def ours_adamw(task: Task, pace: Pace) -> None:
    """The same with the optimizer of the others."""
    ours(replace(task, settings=(*task.settings, ("optimizer", "adamw"))), pace)


def hf(task: Task, pace: Pace) -> None:
    """A plain loop over LlamaForCausalLM: fp32, SDPA, default AdamW, not compiled."""
    _hf_loop(task, pace)


def hf_compiled(task: Task, pace: Pace) -> None:
    """The same, compiled, with autocast to bf16 where the hardware has it."""
    _hf_loop(task, pace, compiled=True)


def _hf_loop(task: Task, pace: Pace, *, compiled: bool = False) -> None:
    device = torch.device(task.device)
    model = build_model(task.config()).to(device).train()  # pyright: ignore[reportArgumentType]
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    forward: Any = torch.compile(model) if compiled else model
    in_bf16 = is_bf16_faster(device) and (compiled or device.type == "cuda")
    for ids in _batches(task):
        with torch.autocast(device.type, torch.bfloat16, enabled=in_bf16):
            loss = forward(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        pace()


def trainer(task: Task, pace: Pace) -> None:
    """transformers' Trainer with its defaults."""
    from transformers import LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

    class Paced(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            pace()

    model = LlamaForCausalLM(decoder_config(task.config(), ControlIds()))
    rows = [ids for batch, _ in zip(_batches(task), range(4), strict=False) for ids in batch.cpu()]
    arguments = TrainingArguments(
        output_dir=f"{task.work}/trainer-{os.getpid()}",
        per_device_train_batch_size=task.rows,
        max_steps=10**7,
        use_cpu=task.device == "cpu",
        report_to=[],
        save_strategy="no",
        logging_steps=10**7,
        disable_tqdm=True,
    )
    data: Any = [{"input_ids": row, "labels": row} for row in rows]
    Trainer(model, arguments, train_dataset=data, callbacks=[Paced()]).train()


def nanogpt(task: Task, pace: Pace) -> None:
    """The model and optimizer of nanoGPT's train.py, not compiled (its README, for a CPU)."""
    model, optimizer = nanogpt_model(task)
    for ids in _batches(task):
        _, loss = model(ids, _targets(ids))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        pace()


def nanogpt_model(task: Task) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return nanoGPT's model of the same depth, width and heads, and its optimizer."""
    module = _peer_module(task.peer, "model")
    shape = {name: task.model[name] for name in ("n_layer", "n_head", "vocab_size")}
    config = module.GPTConfig(
        **shape, n_embd=task.model["d_model"], block_size=task.length, dropout=0.0, bias=False
    )
    model = module.GPT(config).to(task.device)
    return model, model.configure_optimizers(0.1, 6e-4, (0.9, 0.95), task.device)


def nanochat(task: Task, pace: Pace) -> None:
    """The model and optimizer of nanochat's base_train.py, compiled as it is there."""
    model, optimizer = nanochat_model(task)
    forward: Any = torch.compile(model, dynamic=False)
    for ids in _batches(task):
        forward(ids, _targets(ids)).backward()
        optimizer.step()
        model.zero_grad(set_to_none=True)
        pace()


def nanochat_model(task: Task) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return nanochat's model of the same depth, width and heads, and its optimizer."""
    module = _peer_module(task.peer, "nanochat.gpt")
    shape = {name: task.model[name] for name in ("n_layer", "n_head", "vocab_size")}
    config = module.GPTConfig(
        **shape,
        n_kv_head=task.model["n_head"],
        n_embd=task.model["d_model"],
        sequence_len=task.length,
    )
    with torch.device("meta"):
        model = module.GPT(config)
    model.to_empty(device=task.device)
    model.init_weights()
    # base_train.py's arguments and its scaling of the rates by the batch, B_REF = 2**19 tokens
    scale = (task.tokens / 2**19) ** 0.5
    rates = dict(unembedding_lr=0.008, embedding_lr=0.3, matrix_lr=0.02, scalar_lr=0.5)
    optimizer = model.setup_optimizer(**{name: rate * scale for name, rate in rates.items()})
    return model, optimizer


def minimind(task: Task, pace: Pace) -> None:
    """The model of minimind and the AdamW of its train_pretrain.py (fp32 on a CPU)."""
    module = _peer_module(task.peer, "model.model_minimind")
    heads = task.model["n_head"]
    config = module.MiniMindConfig(
        hidden_size=task.model["d_model"],
        num_hidden_layers=task.model["n_layer"],
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=task.model["d_ff"],
        vocab_size=task.model["vocab_size"],
    )
    model = module.MiniMindForCausalLM(config).to(task.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    for ids in _batches(task):
        model(ids, labels=ids).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        pace()


def gemm(task: Task, pace: Pace) -> None:
    """Products of 2048 x 2048 matrices, the peak that shares are told of."""
    dtype = torch.bfloat16 if is_bf16_faster(torch.device(task.device)) else torch.float32
    choose_matmul_precision(torch.device(task.device))
    left, right = (torch.randn(GEMM, GEMM, device=task.device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    while True:
        for _ in range(1 if task.device == "cpu" else 100):
            torch.matmul(left, right, out=out)
        pace()


CONTENDERS: dict[str, Callable[[Task, Pace], None]] = {
    each.__name__: each
    for each in (ours, ours_adamw, hf, hf_compiled, trainer, nanogpt, nanochat, minimind, gemm)
}


def _batches(task: Task) -> Iterator[Tensor]:
    """Yield batches (rows, length) that lie on the device; reading costs the others nothing."""
    data = PackedDataset.open(Path(task.folder), "train", task.length)
    batches = [data.batch(1, n * task.rows, task.rows).to(task.device) for n in range(8)]
    while True:
        yield from batches


def _targets(ids: Tensor) -> Tensor:
    """Return the next ids; nanoGPT and nanochat ignore -1."""
    return torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], -1)], 1)


def _peer_module(folder: str, name: str) -> Any:
    sys.path.insert(0, folder)
    return importlib.import_module(name)


def main() -> None:
    """Run the contender that the argument describes."""
    values = json.loads(sys.argv[1])
    values["settings"] = tuple((values.get("settings") or {}).items())
    task = Task(**values)
    out, sys.stdout = sys.stdout, sys.stderr  # peers print; the parent reads our lines only
    pace = Pace(task.device, out)
    try:
        CONTENDERS[task.name](task, pace)
    except OverError:
        sys.exit(0)


if __name__ == "__main__":
    main()
