"""The benchmark of pre-training runs, on a toy, and says no in one line where it cannot."""

import argparse
import json
import subprocess
import sys

import pytest
import torch

from tests.benchmarks import train


def bench(root, *flags):
    command = [sys.executable, "-m", "tests.benchmarks.train", *map(str, flags)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_its_benchmark_is_refused_in_one_line(root):
    done = bench(root, "--device", "cuda")
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1 and "no CUDA" in done.stderr


def test_a_contender_that_is_killed_is_left_out(monkeypatch, caplog):
    class Fake:
        def __init__(self, task, threads):
            self.task, self.slices = task, 0

        def answer(self):
            return {"steps": 1, "cpu_s": 1.0}

        def train(self, seconds):
            self.slices += 1
            if self.task.name == "hf" and self.slices == 2:
                raise BrokenPipeError(32, "Broken pipe")
            return self.answer()

        def end(self):
            pass

    monkeypatch.setattr(train, "Contender", Fake)
    shape = dict(device="cpu", model={}, length=8, rows=1, folder="", work="")
    tasks = {name: train.Task(name=name, **shape) for name in ("ours", "hf")}
    found = train.race(tasks, argparse.Namespace(rounds=2, seconds=0.0))
    assert set(found) == {"ours"} and len(found["ours"]) == 3
    assert "hf left out, it has ended: [Errno 32] Broken pipe" in caplog.text


@pytest.mark.slow
def test_ours_and_the_peers_at_hand_are_raced(root):
    flags = ["--sections", "speed", "--shapes", "toy", "--seconds", 0.05, "--rounds", 2]
    done = bench(root, *flags, "--without", "hf_compiled", "--settings", '{"compile": false}')
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rates = found["tokens_per_s_toy"]
    assert set(rates) == {"ours", "ours_adamw", "hf", "trainer"} and min(rates.values()) > 0
    assert found["ratio_hf_adamw_toy"] > 0
    assert found["ratio_hf_toy"] > 0 and found["ratio_trainer_toy"] > 0
    assert 0 < found["share_of_peak_toy"] < 1
    assert found["versions"]["torch"] == torch.__version__


@pytest.mark.slow
def test_quality_is_measured_for_ours_and_a_recipe(root, prepared_dir):
    flags = ["--sections", "quality", "--shapes", "toy", "--budgets", 0.2]
    done = bench(root, *flags, "--data_dir", prepared_dir, "--settings", '{"compile": false}')
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    values = [found["bpb"]["0.2"], found["peers_bpb"]["nanogpt_recipe_gpt2"]["0.2"]]
    assert all(1.0 < value < 8.0 for value in values)
    assert all(run["0.2"]["steps"] >= 20 for run in found["quality_runs"].values())
