"""What `make plan` says, on machines worked out by hand and on this one."""

import json
from dataclasses import replace

import pytest

from utils.machine.facts import Machine
from utils.planning.plan import report, times
from utils.planning.sizes import read_size, standard_sizes
from utils.planning.table import fit

LAPTOP = Machine(
    system="Linux", python="3.11.7", torch="2.13.0+cpu", cpu="Some CPU", cores=4, memory_gb=8.0,
    memory_available_gb=6.0, disk_free_gb=50.0, device="cpu", gpus=(), unused_gpus=(), bf16=True,
    compiler="/usr/bin/g++",
)  # fmt: skip


def test_a_size_that_lacks_memory_or_disk_says_how_much(root):
    base = fit(read_size(root / "config/base.json"), LAPTOP)
    assert base["micro_batch"] == 0
    assert base["fits"] == "no: 9.5 GB of memory needed, 6.0 free"
    tiny = read_size(root / "config/tiny.json")
    assert fit(tiny, LAPTOP)["fits"] == "yes"
    # 14.7M x 4 bytes of weights + 8.4M x 8 (AdamW) + 6.3M x 4 (Muon) + notes = 0.16 GB; six of them
    poor = fit(tiny, replace(LAPTOP, disk_free_gb=0.5))
    assert poor["checkpoint_gb"] == 0.16 and poor["disk_gb"] == 0.94
    assert poor["fits"] == "no: 0.9 GB of disk needed, 0.5 free"


def test_the_largest_micro_batch_that_fits_is_told(root):
    tiny = read_size(root / "config/tiny.json")
    assert fit(tiny, LAPTOP)["micro_batch"] == 16
    assert fit(tiny, replace(LAPTOP, memory_available_gb=1.5))["micro_batch"] < 16


def test_tokens_and_times_follow_from_the_speed():
    record = {"tokens_per_s": 1000, "parameters": 14_712_064}
    times(record)
    assert record["tokens_in_30_min"] == 1_800_000
    assert record["tokens_in_1_week"] == 604_800_000
    assert record["optimal_tokens"] == 294_241_280
    assert record["time_to_optimum"] == "3.4 d"  # 294,241 s


def planned(root, speed):
    records = [fit(size, LAPTOP) for size in standard_sizes(root / "config")]
    for record in records:
        record |= {"tokens_per_s": speed, "how": "made up"}
        times(record)
    return report(records)


def test_the_largest_size_that_reaches_its_optimum_in_a_week_is_named(root):
    # nano 31.6M, tiny 294M, small 1342M tokens; base does not fit
    assert "small, 1.342B tokens in 16 h: make pretrain-small" in planned(root, 24_000)
    assert "tiny, 293.7M tokens in 3.4 d: make pretrain-tiny" in planned(root, 1000)
    assert "no size reaches its optimum within a week" in planned(root, 1)


@pytest.fixture
def config_dir(tmp_path):
    shape = {"n_layer": 1, "d_model": 32, "n_head": 2, "d_ff": 64, "vocab_size": 300,
             "sequence_length": 64, "batch_size": 2}  # fmt: skip
    for name in ("nano", "tiny", "small"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"model_name": name, **shape}))
    vast = {**shape, "d_model": 8192, "n_layer": 90, "d_ff": 32768}
    (tmp_path / "base.json").write_text(json.dumps({"model_name": "base", **vast}))
    return tmp_path


def test_the_command_measures_what_fits_and_estimates_the_rest(run_module, config_dir):
    result = run_module(
        "utils.planning.plan", "--cpu", "--config_dir", config_dir, "--model_configs",
        config_dir / "tiny.json", "--max_seconds", 90, "--output_path", config_dir / "out.json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    plan = json.loads((config_dir / "out.json").read_text())
    assert [size["model"] for size in plan["sizes"]] == ["nano", "tiny", "small", "base", "tiny"]
    nano, base = plan["sizes"][0], plan["sizes"][3]
    assert nano["how"].startswith("measured, ") and nano["tokens_per_s"] > 100
    assert base["how"].startswith("estimated, ") and base["fits"].startswith("no: ")
    assert "30 min" in result.stdout and "time for it" in result.stdout


def test_without_measuring_it_says_that_it_estimates(run_module, root):
    flags = ("--cpu", "--no_measure", "--config_dir", root / "config")
    result = run_module("utils.planning.plan", *flags)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("estimated, 50% of the peak (usual share)") == 4
