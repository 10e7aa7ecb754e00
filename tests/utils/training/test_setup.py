"""A resumed run is the run that was never stopped, at every boundary between two steps."""

import json
from dataclasses import asdict

import pytest

from tests.utils.training.toy import bits, settings, train
from utils.files import read_json, sha256_bytes
from utils.machine.precision import Gains, has_bf16
from utils.training import setup
from utils.training.step import fast_paths as speed
from utils.training.step.loss import LossKernel

STEPS = 24
MODES = {
    "fp32": dict(bf16=False),
    "bf16": dict(bf16=True),
    "compiled": dict(compile=True),
    "dropout": dict(dropout=0.1),
    "accumulation": dict(batch_size=2, gradient_accumulation_steps=4),
}


@pytest.fixture
def bf16(monkeypatch):
    """Products in bfloat16 whether the processor has them or emulates them."""
    gains = Gains("", bf16=True, medium=False)
    monkeypatch.setattr(speed, "known_gains", lambda device, recorded: gains)


@pytest.fixture
def eager_again():
    yield
    LossKernel.eager()


def bits_by_step(cfg):
    """Bits after each step of a run, from step 0 or from the checkpoint it resumes."""
    seen = {}
    train(cfg, lambda trainer: seen.update({trainer.state.step: bits(trainer)}))
    return seen


def check_boundaries(prepared_dir, tmp_path, boundaries, **changes):
    """Resume from checkpoints of a run of `STEPS` steps and compare each later step with its."""
    changes = dict(max_steps=STEPS, save_steps=1) | changes
    whole = bits_by_step(settings(prepared_dir, tmp_path / "whole", **changes))
    assert len(set(whole.values())) == STEPS
    changes["save_steps"] = STEPS
    for step in boundaries:
        start = tmp_path / "whole" / "tiny" / f"step_{step}" if step else None
        cfg = settings(
            prepared_dir, tmp_path / f"from_{step}", resume_from_checkpoint=start, **changes
        )
        assert bits_by_step(cfg) == {n: whole[n] for n in range(step + 1, STEPS + 1)}, step


@pytest.mark.usefixtures("bf16", "eager_again")
def test_resume_is_bit_identical_at_some_boundaries(prepared_dir, tmp_path):
    check_boundaries(prepared_dir, tmp_path, (1, 23), dropout=0.1)


def test_a_resumed_run_keeps_the_precision_that_was_measured_for_it(prepared_dir, tmp_path):
    cfg = settings(prepared_dir, tmp_path / "a", max_steps=2, save_steps=1)
    first = train(cfg)
    checkpoint = first.run.folder / "step_1"
    other = read_json(checkpoint / "state.json")
    gains = other["fast_paths"]["gains"]
    assert gains == asdict(first.fast.gains)
    gains["bf16"] = has_bf16(first.processes.device) and not gains["bf16"]
    (checkpoint / "state.json").write_text(json.dumps(other))
    manifest = read_json(checkpoint / "manifest.json")
    data = (checkpoint / "state.json").read_bytes()
    manifest["files"]["state.json"] |= dict(bytes=len(data), sha256=sha256_bytes(data))
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    again = dict(output_dir=tmp_path / "b", resume_from_checkpoint=checkpoint)
    assert train(cfg.model_copy(update=again)).fast.bf16 is gains["bf16"]


@pytest.mark.slow
@pytest.mark.usefixtures("eager_again")
@pytest.mark.parametrize("optimizer", ["normuon", "muon", "adamw"])
@pytest.mark.parametrize("mode", MODES)
def test_resume_is_bit_identical_at_every_boundary(
    mode, optimizer, prepared_dir, tmp_path, request, monkeypatch
):
    if mode == "bf16":
        request.getfixturevalue("bf16")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    changes = dict(bf16=False, optimizer=optimizer) | MODES[mode]
    check_boundaries(prepared_dir, tmp_path, range(STEPS), **changes)


def test_what_changes_the_bits_is_told_on_resume(prepared_dir, tmp_path, monkeypatch, caplog):
    cfg = settings(prepared_dir, tmp_path / "a", max_steps=2, save_steps=1, bf16=False)
    first = train(cfg)
    checkpoint = first.run.folder / "step_1"
    saved = read_json(checkpoint / "state.json")["environment"]
    assert saved["torch"] and "utils/training/trainer.py" in saved["code"]
    again = dict(output_dir=tmp_path / "b", resume_from_checkpoint=checkpoint)
    caplog.clear()
    train(cfg.model_copy(update=again))
    assert "same bits" not in caplog.text and "not the settings" not in caplog.text

    def elsewhere(device):
        code = saved["code"] | {"utils/training/trainer.py": "0" * 12}
        return saved | {"torch": "2.14.0", "threads": 7, "code": code}

    monkeypatch.setattr(setup.provenance, "provenance", elsewhere)
    changed = cfg.model_copy(update=again | dict(learning_rate=0.5, max_steps=2))
    caplog.clear()
    train(changed.model_copy(update=dict(output_dir=tmp_path / "c")))
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    for part in (
        f"torch: {saved['torch']} -> 2.14.0", f"threads: {saved['threads']} -> 7",
        "code: utils/training/trainer.py changed", "--learning_rate 0.003 -> 0.5",
    ):  # fmt: skip
        assert len([line for line in told if line.endswith(part) or part in line]) == 1, told
