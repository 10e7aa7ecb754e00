import json
import math

import pytest

from utils.files import read_json


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [
        {"prompt": f"Is {n} even?", "chosen": "Yes." if n % 2 == 0 else "No.", "rejected": "Hm?"}
        for n in range(60)
    ]
    path.write_text("\n".join([*map(json.dumps, rows), "{broken"]))
    return path


def test_help_names_the_flags_of_the_documents(run_script):
    found = run_script("04_dpo", "--help")
    assert found.returncode == 0
    for flag in [
        "model_path",
        "dataset_path",
        "output_dir",
        "beta",
        "learning_rate",
        "batch_size",
        "gradient_accumulation_steps",
        "num_train_epochs",
        "max_length",
    ]:
        assert f"--{flag}" in found.stdout


def test_the_command_of_the_documents_is_parsed():
    from utils.config.dpo import DPOConfig

    flags = (
        "--model_path checkpoints/sft --dataset_path data/dpo_dataset.json --beta 0.1 "
        "--learning_rate 5e-7 --batch_size 2 --gradient_accumulation_steps 8 --num_train_epochs 1"
    )
    cfg = DPOConfig.from_cli(flags.split())
    assert (cfg.learning_rate, cfg.batch_size, cfg.beta) == (5e-7, 2, 0.1)


def test_a_missing_model_is_one_line_and_exit_1(run_script, pairs):
    found = run_script("04_dpo", "--model_path", "nothing", "--dataset_path", pairs)
    assert found.returncode == 1
    assert "no checkpoint at nothing" in found.stderr
    assert "Traceback" not in found.stderr


def test_the_shipped_settings_are_valid(root):
    from utils.config.dpo import DPOConfig

    assert DPOConfig.from_cli(["--config_path", str(root / "config" / "dpo.json")]).beta == 0.1


def test_a_run_starts_at_ln_2_and_counts_the_broken_line(
    run_script, checkpoint_dir, pairs, tmp_path
):
    found = run_script(
        "04_dpo", "--model_path", checkpoint_dir, "--dataset_path", pairs, "--output_dir", "out",
        "--max_steps", 4, "--no_preflight",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert "1 bad row(s) left out" in found.stderr
    assert "pairs.jsonl:61: not valid JSON" in found.stderr
    run = read_json(tmp_path / "out" / "run.json")
    assert run["summary"]["first_loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert run["summary"]["counts"]["bad"] == 1
    assert {"heldout_accuracy_before", "heldout_accuracy_after", "pairs"} <= run["summary"].keys()
