"""Stage 02 on several processes: the same bits, the same folder, whoever joins or dies."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from utils.files import read_json, read_lines

ROOT = Path(__file__).resolve().parents[2]
TOY = dict(
    n_layer=2, d_model=32, n_head=2, d_ff=48, vocab_size=600, sequence_length=32, batch_size=2,
    gradient_accumulation_steps=8, warmup_steps=2, eval_tokens=400, max_steps=8, save_steps=1,
    save_total_limit=100, cpu=True, compile=False, preflight=False, bf16=False,
)  # fmt: skip
BIGRAM = dict(initialization="bigram")
CANONICAL = dict(reduce="canonical", dropout=0.1, **BIGRAM)

pytestmark = pytest.mark.slow


def command(processes, **changes):
    """The toy run as a user starts it on so many processes."""
    flags = []
    for name, value in (TOY | changes).items():
        flags += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    script = str(ROOT / "scripts" / "02_pretrain.py")
    if processes == 1:
        return [sys.executable, script, *flags]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launcher, "--nproc_per_node", str(processes), script, *flags]


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def train(processes, folder, prepared_dir, **changes):
    """Run to the end; return the run folder."""
    options = dict(data_dir=prepared_dir, output_dir=folder) | changes
    done = subprocess.run(
        command(processes, **options), env=environment(), capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "tiny"


def state_bytes(folder):
    return [(folder / f"{name}.safetensors").read_bytes() for name in ("model", "optimizer")]


def distance(left, right):
    """Largest difference between the weights of two model folders."""
    a, b = load_file(left / "model.safetensors"), load_file(right / "model.safetensors")
    assert set(a) == set(b)
    return max((a[name] - b[name]).abs().max().item() for name in a)


@pytest.fixture(scope="module")
def canonical(prepared_dir, tmp_path_factory):
    """A run of one process, never disturbed."""
    return train(1, tmp_path_factory.mktemp("canonical"), prepared_dir, **CANONICAL)


@pytest.mark.parametrize("processes", [2, 4])
def test_a_canonical_run_has_the_same_bits_on_any_number(
    canonical, processes, prepared_dir, tmp_path
):
    run = train(processes, tmp_path, prepared_dir, **CANONICAL)
    assert state_bytes(run / "final") == state_bytes(canonical / "final")
    assert state_bytes(run / "best") == state_bytes(canonical / "best")
    left, right = (
        [(r["step"], r["loss"]) for r in read_lines(place / "metrics.jsonl") if "loss" in r]
        for place in (run, canonical)
    )
    assert left == right and len(left) == 8


def test_an_elastic_chain_has_the_same_bits(canonical, prepared_dir, tmp_path):
    seed = int(os.environ.get("ELASTIC_SEED", random.SystemRandom().randrange(10**6)))
    draw = random.Random(seed)
    counts = [1, 2, 4]
    draw.shuffle(counts)
    counts.append(draw.choice(counts[:2]))
    stops = [*sorted(draw.sample(range(1, 8), 3)), None]
    sys.stdout.write(f"ELASTIC_SEED={seed}: processes {counts}, resumed after {stops[:-1]}\n")
    start = {}
    for number, (processes, stop) in enumerate(zip(counts, stops, strict=True)):
        run = train(processes, tmp_path / str(number), prepared_dir, **CANONICAL, **start)
        start = dict(resume_from_checkpoint=run / f"step_{stop}")
    assert state_bytes(run / "final") == state_bytes(canonical / "final"), seed


def test_a_canonical_run_needs_micro_batches_for_all(prepared_dir, tmp_path):
    options = CANONICAL | dict(data_dir=prepared_dir, output_dir=tmp_path)
    done = subprocess.run(
        command(2, **options, gradient_accumulation_steps=3), env=environment(),
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode != 0
    assert "6 rows in micro-batches of 2 do not go evenly into 2 processes" in done.stderr
    assert f'File "{ROOT}/utils' not in done.stderr


def test_the_fast_sum_is_close(canonical, prepared_dir, tmp_path):
    one = train(1, tmp_path / "1", prepared_dir, optimizer="adamw", global_batch_size=16)
    for processes in (2, 4):
        folder = tmp_path / str(processes)
        run = train(processes, folder, prepared_dir, optimizer="adamw", global_batch_size=16)
        left, right = (
            [r["loss"] for r in read_lines(place / "metrics.jsonl") if "loss" in r]
            for place in (one, run)
        )
        assert right == pytest.approx(left, rel=1e-6), processes
        assert distance(run / "final", one / "final") < 1e-6


def started(processes, folder, prepared_dir, **changes):
    """Start a long run, return it when it has saved its third step."""
    options = CANONICAL | dict(data_dir=prepared_dir, output_dir=folder, max_steps=400) | changes
    process = subprocess.Popen(
        command(processes, **options), env=environment(), stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (folder / "tiny" / "step_3").is_dir() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def test_a_stopped_launcher_saves_and_another_number_goes_on(prepared_dir, tmp_path):
    process = started(2, tmp_path / "a", prepared_dir)
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=100)
    run = tmp_path / "a" / "tiny"
    assert read_json(run / "run.json")["status"] == "interrupted", log
    saved = max(int(path.name[5:]) for path in run.glob("step_*"))
    assert f"saved at step {saved}" in log and saved < 400
    assert psutil.Process().children(recursive=True) == []
    rest = CANONICAL | dict(max_steps=saved + 2)  # a few steps more are enough
    whole = train(
        4, tmp_path / "b", prepared_dir, **rest, resume_from_checkpoint=run / f"step_{saved}"
    )
    train(1, tmp_path / "a", prepared_dir, **rest, resume_from_checkpoint=run)
    assert state_bytes(run / "final") == state_bytes(whole / "final")


def test_every_process_leaves_with_75(prepared_dir, tmp_path):
    """Without a launcher, as `srun` starts them: each is signalled by itself."""
    options = CANONICAL | dict(data_dir=prepared_dir, output_dir=tmp_path, max_steps=400)
    shared = dict(MASTER_ADDR="127.0.0.1", MASTER_PORT="29713", WORLD_SIZE="2")
    ranks = [
        subprocess.Popen(
            command(1, **options), stderr=subprocess.PIPE, text=True,
            env=environment() | shared | dict(RANK=str(rank), LOCAL_RANK=str(rank)),
        )
        for rank in range(2)
    ]  # fmt: skip
    deadline = time.monotonic() + 120
    while not (tmp_path / "tiny" / "step_3").is_dir():
        assert time.monotonic() < deadline and all(rank.poll() is None for rank in ranks)
        time.sleep(0.05)
    ranks[1].send_signal(signal.SIGTERM)  # one is enough: they stop together
    logs = [rank.communicate(timeout=100)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [75, 75], logs
    assert "saved at step" in logs[0]


def test_a_dying_process_ends_the_others_in_one_line(prepared_dir, tmp_path):
    process = started(2, tmp_path, prepared_dir)
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if any("02_pretrain" in word for word in child.cmdline())
    ]
    assert len(workers) == 2
    next(w for w in workers if w.environ()["RANK"] == "1").kill()
    _, log = process.communicate(timeout=100)
    assert process.returncode != 0
    assert "process 0 of 2 lost another one" in log, log
    assert f'File "{ROOT}/utils' not in log and f'File "{ROOT}/scripts' not in log
    assert read_json(tmp_path / "tiny" / "run.json")["status"] == "failed"


SHARDED = dict(parallel="fsdp", global_batch_size=16)


@pytest.mark.parametrize("optimizer", ["normuon", "adamw"])
def test_fsdp_learns_what_one_process_does(optimizer, prepared_dir, tmp_path):
    common = SHARDED | dict(optimizer=optimizer) | (BIGRAM if optimizer == "normuon" else {})
    one = train(1, tmp_path / "one", prepared_dir, **common)
    two = train(2, tmp_path / "two", prepared_dir, **common)
    assert distance(two / "final", one / "final") < 1e-5
    left, right = (
        [r["loss"] for r in read_lines(place / "metrics.jsonl") if "loss" in r]
        for place in (one, two)
    )
    assert right == pytest.approx(left, abs=1e-5) and len(left) == 8
    names = {path.name for path in (two / "step_4").iterdir()}
    assert {"shard_00000.safetensors", "shard_00001.safetensors", "state.json"} <= names
    assert "model.safetensors" not in names
    check_plain_folder(two / "final", prepared_dir)
    if optimizer == "adamw":
        return
    # resumed by as many: the same bits; by more or fewer: the same numbers
    resumed = common | dict(resume_from_checkpoint=two / "step_4")
    same = train(2, tmp_path / "same", prepared_dir, **resumed)
    assert same_tensors(same / "final", two / "final")
    alone = train(1, tmp_path / "alone", prepared_dir, **resumed)
    assert distance(alone / "final", one / "final") < 1e-5
    uneven = train(
        3, tmp_path / "uneven", prepared_dir, **resumed | dict(global_batch_size=18, max_steps=5)
    )
    assert read_json(uneven / "run.json")["summary"]["steps"] == 5


def same_tensors(left, right):
    names = sorted(path.name for path in left.glob("*.safetensors"))
    assert names == sorted(path.name for path in right.glob("*.safetensors")) and len(names) == 3
    return all((left / name).read_bytes() == (right / name).read_bytes() for name in names)


def check_plain_folder(folder, prepared_dir):
    """Plain transformers reads it with every key."""
    from transformers import LlamaForCausalLM

    model, info = LlamaForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert model.config.architectures == ["LlamaForCausalLM"]
    with torch.no_grad():
        ids = torch.arange(20)[None]
        assert torch.isfinite(model(ids, labels=ids).loss)
