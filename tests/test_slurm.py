"""The Slurm example: a shell script whose flags exist."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from utils.config.pretrain import PretrainConfig

EXAMPLE = Path(__file__).resolve().parents[1] / "config" / "slurm" / "pretrain.sbatch"


def words():
    """What the example starts through srun, without continuation lines."""
    text = EXAMPLE.read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = (line for line in text.splitlines() if line.startswith("srun"))
    return shlex.split(line)


def test_it_is_a_shell_script():
    done = subprocess.run(["bash", "-n", str(EXAMPLE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_flags_of_the_stage_exist():
    script = words().index("scripts/02_pretrain.py")
    assert (EXAMPLE.parents[2] / words()[script]).is_file()
    flags = [word for word in words()[script + 1 :] if word != "$@"]
    assert PretrainConfig.from_cli(flags).parallel == "fsdp"


def test_the_flags_of_torchrun_exist():
    from torch.distributed.run import get_args_parser

    first = next(n for n, word in enumerate(words()) if word.endswith("torchrun"))
    script = words().index("scripts/02_pretrain.py")
    flags = [word.replace("$SLURM_JOB_NUM_NODES", "2") for word in words()[first + 1 : script]]
    parsed = get_args_parser().parse_args([*flags, "scripts/02_pretrain.py"])
    seconds = int(re.search(r"--signal=TERM@(\d+)", EXAMPLE.read_text()).group(1))
    assert 30 < parsed.shutdown_timeout < seconds  # saving ends before Slurm kills
    assert parsed.max_restarts == 0


@pytest.mark.parametrize("word", ["--requeue", "scontrol requeue", "exit 75"])
def test_an_interrupted_job_goes_back_into_the_queue(word):
    assert word in EXAMPLE.read_text(encoding="utf-8")


@pytest.mark.parametrize(("status", "code"), [("interrupted", 75), ("failed", 1), (None, 1)])
def test_what_a_round_leaves_decides_what_comes_next(status, code, tmp_path):
    """Run the whole script with stand-ins for Slurm's commands on the path."""
    for name, body in {
        "scontrol": 'echo "$@" >> calls; echo node1',
        "srun": 'echo "srun $@" >> calls; exit 1',
    }.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    if status:
        run = tmp_path / "out" / "tiny"
        run.mkdir(parents=True)
        (run / "run.json").write_text(f'{{\n  "status": "{status}"\n}}\n')
    env = {
        "PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2", "OUTPUT_DIR": "out",
    }  # fmt: skip
    done = subprocess.run(["bash", str(EXAMPLE), "--seed", "3"], env=env, capture_output=True)
    calls = (tmp_path / "calls").read_text()
    assert done.returncode == code, done.stderr
    assert "--rdzv-endpoint node1:29500" in calls and "--seed 3" in calls
    assert ("requeue 7" in calls) == (status == "interrupted")
