"""Make targets: all there, all honest, and each variable reaches its stage."""

import functools
import itertools
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from utils.config.kinds import Reach, mark_of
from utils.config.variables import COMMANDS, variables_of

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


@functools.cache
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


COMMANDS_OF_TARGETS = {
    "prepare": "prepare",
    "create-sample-datasets": "samples",
    "pretrain-tiny": "pretrain",
    "resume-pretrain-base": "pretrain",
    "sft": "sft",
    "dpo": "dpo",
    "evaluate": "evaluate",
    "serve": "serve",
    "preflight": "preflight",
    "plan": "plan",
    "prove-resume": "prove-resume",
}
TYPED_ONLY = {"CPU", "R", "LANGUAGE", "TEMPLATE", "HOST", "PORT"}
"""Shells and desktops export these for reasons of their own."""


def missing(command, values):
    """Return the settings whose value is no flag of the command, as the shell would read it."""
    words = shlex.split(command)
    pairs = set(itertools.pairwise(words))
    return [name for name, value in values.items() if (f"--{name}", value) not in pairs]


@pytest.mark.parametrize("target", COMMANDS_OF_TARGETS)
def test_every_setting_of_a_stage_arrives_from_the_environment_as_its_flag(target):
    variables = variables_of(COMMANDS[COMMANDS_OF_TARGETS[target]])
    command = command_of(target, **dict.fromkeys(variables.values(), "7"))
    free = {name: "7" for name, variable in variables.items() if variable not in TYPED_ONLY}
    assert missing(command, free) == []
    typed = variables.keys() - free.keys()
    assert not [name for name in typed if f"--{name} " in command]
    command = command_of(target, *(f"{variables[name]}=7" for name in typed))
    assert missing(command, dict.fromkeys(typed, "7")) == []


def test_only_names_that_shells_export_must_be_typed():
    marks = [
        (variables_of(config).get(name), mark_of(field.metadata, Reach))
        for config in COMMANDS.values()
        for name, field in config.model_fields.items()
    ]
    assert {variable for variable, mark in marks if mark is Reach.COMMAND_LINE} == TYPED_ONLY


def test_the_command_line_reaches_a_stage_too():
    assert "--batch_size 8" in command_of("pretrain-tiny", "BATCH_SIZE=8")
    assert "--batch_size 8" in command_of("pretrain-tiny", "BATCH_SIZE=8", BATCH_SIZE="4")
    assert "--data_dirs a b" in command_of("pretrain-small", "DATA_DIRS=a b")
    assert "--host ::1" in command_of("serve", "HOST=::1")
    assert "--host" not in command_of("serve", HOST="mybox")
    assert "--dataset_path 'mine.json'" in command_of("sft", "SFT_DATASET=mine.json")
    assert "--data_dir eval" in command_of("evaluate-quick", "EVAL_DATA_DIR=eval")
    assert "batch_size" not in command_of("pretrain-tiny", "BATCH_SIZE=", BATCH_SIZE="")
    assert "--mode interactive" in command_of("serve", MODE="api")


def words_of(command):
    done = subprocess.run(["sh", "-c", f"printf '%s\\0' {command}"], capture_output=True, text=True)
    return done.stdout.split("\0")[:-1]


@pytest.mark.parametrize("text", ["it's", 'say "no"', "a, b) c", "$HOME `x` \\n", "*"])
def test_a_value_arrives_unharmed_whatever_it_holds(text):
    typed = text.replace("$", "$$")  # for make
    assert words_of(command_of("serve", f"SYSTEM_PROMPT={typed}"))[-2:] == ["--system_prompt", text]
    assert words_of(command_of("serve", SYSTEM_PROMPT=text))[-1] == text


def test_an_exported_value_keeps_its_lines():
    text = "two\nlines of 5 $ and \\n"
    assert words_of(command_of("serve", SYSTEM_PROMPT=text))[-1] == text


def test_a_variable_of_the_makefile_alone_is_quoted_too():
    assert missing(command_of("sft", SFT_DATASET="it's $5"), {"dataset_path": "it's $5"}) == []
    assert missing(command_of("prepare", "SRC=it's $$5"), {"input_path": "it's $5"}) == []
    resumed = command_of("resume-pretrain-tiny", "OUTPUT_DIR=it's", "RESUME_FROM_CHECKPOINT=x")
    assert words_of(resumed)[-2:] == ["--resume_from_checkpoint", "it's/tiny"]
    assert words_of(command_of("assess-performance", "RESULTS=a b"))[-1] == "a b"


def test_the_launcher_and_the_allocator_stand_in_front_of_the_script():
    command = command_of("pretrain-base", "LAUNCH=accelerate launch", "SEED=7")
    assert re.fullmatch(
        r"env GLIBC_TUNABLES=\S+ .*MALLOC_TOP_PAD_=\d+ accelerate launch scripts/02_pretrain\.py "
        r"--config config/base\.json --seed 7",
        command,
    )


def test_a_mistyped_variable_is_refused_with_the_nearest_name():
    done = make("-o", ".venv/.installed", "sft", "BATCH_SIZ=8")
    assert done.returncode == 2 and "03_sft" not in done.stdout
    assert "unknown variable BATCH_SIZ: did you mean BATCH_SIZE?" in done.stderr


def test_a_fresh_clone_shows_what_it_would_run_before_it_has_an_environment(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.txt").touch()
    done = make("-n", "-C", str(tmp_path), "sft", "SEED=7")
    assert done.returncode == 0 and "scripts/03_sft.py --config config/sft.json" in done.stdout
    assert done.stderr == ""


def test_a_learning_rate_meant_for_one_stage_never_reaches_a_session():
    command = command_of("session-quick", LEARNING_RATE="1", BATCH_SIZE="2")
    assert "learning_rate" not in command and "batch_size" not in command
    assert command.rstrip().endswith("--config sessions/quick.json")


def test_a_session_takes_its_time_box_its_corpus_and_its_own_files():
    command = command_of("session-quick", "SESSION_MINUTES=12", "SRC=my texts")
    assert "--minutes 12" in command and "--source 'my texts'" in command
    assert "--dataset_config" not in command
    assert "--dataset_config x.json" in command_of("session-quick", CONFIG="x.json")
    own = dict(SFT_DATASET="s", DPO_DATASET="d", MODEL_PATH="m", EVAL_DATA_DIR="e", SEED="7")
    expected = {"sft_dataset": "s", "dpo_dataset": "d", "eval_data_dir": "e", "seed": "7"}
    assert missing(command_of("session-quick", **own), {**expected, "model_path": "m"}) == []
    assert missing(command_of("pipeline-full", **own), expected) == []


def test_what_a_session_is_comes_from_its_file_alone():
    names = ("NAME", "DESCRIPTION", "STAGES", "MODEL_SIZES", "RUNS_DIR", "WORK_DIR", "TEST")
    for target in ("session-quick", "pipeline-full"):
        assert " --" not in command_of(target, **dict.fromkeys(names, "x")).split(".json")[-1]


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
