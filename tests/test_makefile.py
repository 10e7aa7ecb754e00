"""Make targets: all there, all honest, and each variable reaches its stage."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from utils.config.dpo import DPOConfig
from utils.config.evaluate import EvaluateConfig
from utils.config.prepare import PrepareConfig, SampleConfig
from utils.config.pretrain import PretrainConfig
from utils.config.prove_resume import ProveResumeConfig
from utils.config.serve import ServeConfig
from utils.config.sft import SFTConfig

ROOT = Path(__file__).resolve().parents[1]
TARGETS = """
help install check-env prepare prepare-demo prepare-wt103 prepare-wiki prepare-owt
create-sample-datasets pretrain-tiny pretrain-small pretrain-base resume-pretrain-tiny
resume-pretrain-small resume-pretrain-base sft dpo evaluate evaluate-quick evaluate-detailed
assess-performance validate-architecture serve serve-api test-pipeline pipeline-full backup monitor
clean clean-data clean-checkpoints config-rtx4090 session-quick session-prototype session-experiment
session-evaluation session-debug session-architecture session-status session-cleanup preflight
resume test test-slow check prove-resume plan
"""
DOCUMENTED = TARGETS.split()


def make(*arguments, **environment):
    clean = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**clean, **environment},
    )


def command_of(target, *variables, **environment):
    """The last line make would run for `target` on a machine that is set up."""
    done = make("-n", "-o", ".venv/.installed", target, *variables, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize("target", DOCUMENTED)
def test_every_documented_target_has_a_recipe_and_a_line_of_help(target):
    assert command_of(target)
    line = rf"^  (\S+ )*{re.escape(target)}( \S+)*  +\S"
    assert re.search(line, make("help").stdout, re.MULTILINE)


@pytest.mark.parametrize("target", DOCUMENTED)
def test_what_a_target_runs_exists(target):
    command = command_of(target)
    for script in re.findall(r"\S+/\S+\.py", command):
        assert (ROOT / script).is_file()
    for module in re.findall(r"-m (utils\.\S+)", command):
        assert (ROOT / (module.replace(".", "/") + ".py")).is_file()
    for config in re.findall(r"\S+\.json", command):
        assert (ROOT / config.strip("'")).is_file()


STAGES = {
    "prepare": PrepareConfig,
    "create-sample-datasets": SampleConfig,
    "pretrain-tiny": PretrainConfig,
    "sft": SFTConfig,
    "dpo": DPOConfig,
    "evaluate": EvaluateConfig,
    "serve": ServeConfig,
    "prove-resume": ProveResumeConfig,
}
SET_BY_THE_TARGET = {
    ("pretrain-tiny", "model_name"),
    ("serve", "mode"),
    ("prepare", "language"),  # only from the command line: desktops export LANGUAGE
    ("serve", "host"),  # only from the command line: some shells export HOST
    ("evaluate", "data_dir"),  # EVAL_DATA_DIR: DATA_DIR is the prepared corpus
    ("create-sample-datasets", "max_answer_characters"),
}


@pytest.mark.parametrize("target", STAGES)
def test_every_setting_of_a_stage_arrives_from_the_environment_as_its_flag(target):
    fields = STAGES[target].model_fields
    names = [
        name
        for name, field in fields.items()
        if (field.json_schema_extra or {}) != {"flag": False}
        and (target, name) not in SET_BY_THE_TARGET
    ]
    command = command_of(target, **{name.upper(): "7" for name in names})
    for name in names:
        assert re.search(rf"--{name} '?7'?(\s|$)", command), f"{name} does not reach {target}"


def test_the_command_line_reaches_a_stage_too():
    assert "--batch_size '8'" in command_of("pretrain-tiny", "BATCH_SIZE=8")
    assert "--data_dirs a b" in command_of("pretrain-small", "DATA_DIRS=a b")
    assert "--host '::1'" in command_of("serve", "HOST=::1")
    assert "--host" not in command_of("serve", HOST="mybox")
    assert "--dataset_path 'mine.json'" in command_of("sft", "SFT_DATASET=mine.json")
    assert "--data_dir 'eval'" in command_of("evaluate-quick", "EVAL_DATA_DIR=eval")


def test_a_learning_rate_meant_for_one_stage_never_reaches_a_session():
    command = command_of("session-quick", LEARNING_RATE="1", BATCH_SIZE="2")
    assert "learning_rate" not in command and "batch_size" not in command
    assert command.endswith("--config sessions/quick.json")


def test_a_session_takes_its_box_and_its_corpus():
    command = command_of("session-quick", "SESSION_MINUTES=12", "SRC=my texts")
    assert "--minutes '12'" in command and "--source 'my texts'" in command
    assert "--dataset_config 'x.json'" in command_of("session-quick", CONFIG="x.json")


def test_recipes_never_pipe_into_something_that_hides_a_failure():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipes = [line for line in text.splitlines() if line.startswith("\t")]
    assert not [line for line in recipes if re.search(r"[^|]\|[^|]", line)]


def test_a_failing_stage_fails_its_target(tmp_path):
    done = make("-o", ".venv/.installed", "sft", "MODEL_PATH=nowhere", "LUMI=1")
    assert done.returncode == 2 and "nowhere" in done.stderr


def test_installing_with_another_index_takes_only_torch_from_it():
    done = make("-n", "-W", "requirements.txt", "install", "TORCH_INDEX=https://example.org/cpu")
    lines = [line for line in done.stdout.splitlines() if "pip install" in line]
    assert "--index-url https://example.org/cpu torch==" in lines[0]
    assert "-r requirements.txt" in lines[1] and "index-url" not in lines[1]
