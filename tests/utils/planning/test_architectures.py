"""Figures of model configurations against numbers from elsewhere."""

import json

import pytest

from utils.planning.architectures import describe
from utils.planning.sizes import read_size


def test_figures_of_tiny_are_those_of_torch(root):
    from utils.model.architecture import build_model

    size = read_size(root / "config/tiny.json")
    record = describe(size)
    assert record["parameters"] == sum(p.numel() for p in build_model(size.model).parameters())
    assert record["optimal_tokens"] == 20 * record["parameters"]
    # 6 x (6 x (4 x 256^2 + 3 x 256 x 1024) + 32768 x 256) + 6 x 6 x 256 x 1024 = 97,517,568
    assert record["optimal_pflop"] == round(293_688_320 * 97_517_568 / 1e15, 1) == 28.6
    assert record["nearest_known_model"] == "1.04 x Pythia-14m (14.1M)"


def test_the_command_shows_all_and_is_quick(run_module, root):
    result = run_module("utils.planning.architectures", "--config_dir", root / "config")
    assert result.returncode == 0, result.stderr
    shown = "advanced_example base small tiny 251.7M 226.5M 67.12M Qwen3-0.6B Pythia-160m"
    for name in shown.split():
        assert name in result.stdout


def test_a_broken_configuration_is_one_line_and_exit_1(run_module, tmp_path):
    (tmp_path / "bad.json").write_text('{"n_layer": "many"}')
    result = run_module("utils.planning.architectures", "--config_dir", tmp_path)
    assert result.returncode == 1
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1
    assert "bad.json" in result.stderr


@pytest.fixture
def toy_config(tmp_path):
    shape = {"model_name": "toy", "n_layer": 1, "d_model": 32, "n_head": 2, "d_ff": 64,
             "vocab_size": 300, "sequence_length": 64, "batch_size": 2}  # fmt: skip
    (tmp_path / "toy.json").write_text(json.dumps(shape))
    huge = {**shape, "model_name": "vast", "d_model": 8192, "n_layer": 90, "d_ff": 32768}
    (tmp_path / "vast.json").write_text(json.dumps(huge))
    return tmp_path


def test_measuring_gives_a_rate_or_the_reason_why_not(run_module, toy_config):
    result = run_module(
        "utils.planning.architectures", "--measure", "--cpu", "--max_seconds", 60,
        "--config_dir", toy_config, "--output_path", toy_config / "out" / "figures.json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    toy, vast = json.loads((toy_config / "out" / "figures.json").read_text())["architectures"]
    assert toy["tokens_per_s"] > 0
    assert toy["measured_with"].endswith("not compiled")
    assert vast["tokens_per_s"] is None
    assert vast["measured_with"].startswith("skipped: needs ")
