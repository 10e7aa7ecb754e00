import json
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from utils.files import read_json, read_lines


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "chats.json"
    rows = [
        {"prompt": f"What is {a} plus {b}?", "response": f"It is {a + b}."}
        for a in range(20)
        for b in range(20)
    ]
    path.write_text(json.dumps(rows))
    return path


def test_help_names_the_flags_of_the_documents(run_script):
    found = run_script("03_sft", "--help")
    assert found.returncode == 0
    for flag in ("model_path", "dataset_path", "prompt_template", "config_path", "output_dir"):
        assert f"--{flag}" in found.stdout


def test_a_mistyped_flag_is_one_line_and_exit_2(run_script):
    found = run_script("03_sft", "--modelpath", "x")
    assert found.returncode == 2
    assert "did you mean '--model_path'?" in found.stderr
    assert "Traceback" not in found.stderr


def test_a_missing_model_is_one_line_and_exit_1(run_script, chats):
    found = run_script("03_sft", "--model_path", "nothing", "--dataset_path", chats)
    assert found.returncode == 1
    assert "no checkpoint at nothing" in found.stderr
    assert "Traceback" not in found.stderr


def test_the_shipped_settings_are_valid(root):
    from utils.config.sft import SFTConfig

    cfg = SFTConfig.from_cli(["--config_path", str(root / "config" / "sft.json")])
    assert cfg.learning_rate > 1e-4  # a LoRA rate, not one of full fine-tuning


@pytest.mark.slow
def test_a_run_ends_inside_its_box_and_prints_the_model(
    run_script, checkpoint_dir, chats, tmp_path
):
    started = time.monotonic()
    found = run_script(
        "03_sft", "--model_path", checkpoint_dir, "--dataset_path", chats, "--max_minutes", 1,
        "--num_train_epochs", 400, "--output_dir", "out", "--no_preflight", "--tensorboard",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert time.monotonic() - started < 60
    assert found.stdout == "out/final\n"
    lines = read_lines(tmp_path / "out" / "metrics.jsonl")
    assert lines[0]["event"] == "plan"
    assert lines[-1]["learning_rate"] < 4e-4  # a fifth of the peak: the plan met the end
    summary = read_json(tmp_path / "out" / "run.json")["summary"]
    assert summary["heldout_loss_after"] < summary["heldout_loss_before"]
    assert list((tmp_path / "out" / "tensorboard").iterdir())


@pytest.mark.slow
def test_a_box_too_small_names_the_minimum(run_script, checkpoint_dir, chats):
    found = run_script(
        "03_sft", "--model_path", checkpoint_dir, "--dataset_path", chats, "--max_minutes", 0.05,
        "--no_preflight",
    )  # fmt: skip
    assert found.returncode == 1
    assert re.search(r"--max_minutes 0\.05 is too small .* at least \d", found.stderr)


@pytest.mark.slow
def test_sigterm_saves_the_adapter_and_exits_75(root, checkpoint_dir, chats, tmp_path):
    command = [
        sys.executable, str(root / "scripts" / "03_sft.py"), "--model_path", str(checkpoint_dir),
        "--dataset_path", str(chats), "--num_train_epochs", "400", "--output_dir", "out",
        "--no_preflight", "--logging_steps", "1",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "out" / "metrics.jsonl"
    deadline = time.monotonic() + 90
    while len(read_lines(metrics)) < 5 and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "adapter saved at step" in errors
    assert read_json(tmp_path / "out" / "run.json")["status"] == "interrupted"
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()
    shutil.rmtree(tmp_path / "out")
