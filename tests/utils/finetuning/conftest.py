"""A pre-trained toy, practice data, and one SFT run on them that several tests look at."""

import contextlib
import importlib
import json
import shutil

import pytest

from utils.config.sft import SFTConfig
from utils.files import read_json, write_json, write_manifest


@pytest.fixture(scope="session")
def project(tmp_path_factory, checkpoint_dir):
    """A folder as a user's: checkpoints/pretrain/toy/final and data/."""
    root = tmp_path_factory.mktemp("project")
    base = root / "checkpoints" / "pretrain" / "toy" / "final"
    shutil.copytree(checkpoint_dir, base)
    card = read_json(base / "lumi.json")
    write_json(base / "lumi.json", {**card, "stage": "pretrain", "template": None})
    write_manifest(base, kind="model")
    chats = [
        {"prompt": f"What is {a} plus {b}?", "response": f"It is {a + b}."}
        for a in range(8)
        for b in range(8)
    ]
    pairs = [
        {"prompt": f"Is {a} even?", "chosen": "Yes, it is." if a % 2 == 0 else "No, it is not.",
         "rejected": "Perhaps so, who can tell."}
        for a in range(40)
    ]  # fmt: skip
    (root / "data").mkdir()
    rows = [*chats, {"prompt": "no answer"}, {"prompt": "long", "response": "x " * 400}]
    (root / "data" / "chats.json").write_text(json.dumps(rows))
    (root / "data" / "pairs.json").write_text(json.dumps(pairs))
    return root


def _without_preflight(script):
    main = importlib.import_module(f"scripts.{script}").main
    return lambda cfg: main(cfg.model_copy(update={"preflight": False}))


@pytest.fixture(scope="session")
def run_sft():
    """Stage 03 without its proofs."""
    return _without_preflight("03_sft")


@pytest.fixture(scope="session")
def run_dpo():
    """Stage 04 without its proofs."""
    return _without_preflight("04_dpo")


@pytest.fixture(scope="session")
def sft_run(project, run_sft):
    """The output folder of an SFT run of 6 steps."""
    settings = {
        "model_path": project / "checkpoints" / "pretrain" / "toy",
        "dataset_path": project / "data" / "chats.json",
        "output_dir": project / "checkpoints" / "sft",
        "max_steps": 6,
        "logging_steps": 2,
    }
    # As a user: PEFT's own name of the base is relative to the working folder, and from a clone
    # below the temporary folder it would lead to this base from a test's folder too.
    with contextlib.chdir(project):
        run_sft(SFTConfig.build(settings))
    return project / "checkpoints" / "sft"
