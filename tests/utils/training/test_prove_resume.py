"""make prove-resume: kills at random moments cost nothing."""

import json
import shutil
import time

import pytest

from utils.config.pretrain import PretrainConfig
from utils.config.prove_resume import ProveResumeConfig
from utils.errors import LumiError
from utils.training.prove_resume import TOY, Tally, Trial

ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def prove(run_module, *flags, timeout):
    done = run_module(
        "utils.training.prove_resume", "--cpu", *flags, env=ONE_THREAD, timeout=timeout
    )
    return done, json.loads(done.stdout)


def test_three_kills_cost_nothing(run_module, prepared_dir):
    done, facts = prove(run_module, "--kills", 3, "--data_dir", prepared_dir, timeout=300)
    assert done.returncode == 0, done.stderr
    assert facts["kills"] >= 3 and facts["runs"] == facts["identical"] >= 1
    assert (facts["lost"], facts["corrupt"]) == (0, 0)
    assert facts["versions"]["torch"] and facts["machine"]


@pytest.mark.slow
def test_250_kills_cost_nothing(run_module):
    done, facts = prove(run_module, "--kills", 250, timeout=3600)
    assert done.returncode == 0, done.stderr
    assert facts["kills"] == 250 and facts["runs"] == facts["identical"] > 10
    assert (facts["lost"], facts["corrupt"]) == (0, 0)


def test_what_a_kill_has_cost_is_counted(tmp_path, checkpoint_dir):
    cfg = PretrainConfig(**TOY, output_dir=tmp_path)
    trial, tally = Trial(cfg, tmp_path / "log.txt", train=print), Tally(kills=1, runs=1)
    for step in (3, 5):
        folder = shutil.copytree(checkpoint_dir, trial.folder / f"step_{step}")
        (folder / "state.json").write_text(json.dumps({"step": step}))
    trial.look(tally)
    assert tally == Tally(kills=1, runs=1)
    (trial.folder / "step_5" / "config.json").write_text("{}")
    (trial.folder / ".tmp-step_7").mkdir()
    trial.look(tally)
    assert (tally.corrupt, tally.lost, tally.in_a_save, tally.is_clean) == (1, 1, 1, False)


def test_a_run_that_does_not_go_on_says_why(tmp_path):
    def fail(cfg):
        raise LumiError("no room")

    trial = Trial(PretrainConfig(**TOY, output_dir=tmp_path), tmp_path / "log.txt", train=fail)
    with pytest.raises(LumiError, match=r"status 1: .*no room"):
        trial.live(save_steps=1, until_s=None)
    assert Trial(trial.cfg, trial.log_path, train=sleep).live(save_steps=1, until_s=0.1)


def sleep(cfg):
    time.sleep(60)


def test_the_defaults_are_those_of_the_documents():
    assert ProveResumeConfig().kills == 20
