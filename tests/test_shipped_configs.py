"""Shipped configuration files show the settings they are for, and nothing that says nothing."""

import json
from pathlib import Path

import pytest

from utils.config.base import StageConfig, read_config_file
from utils.config.dpo import DPOConfig
from utils.config.evaluate import EvaluateConfig
from utils.config.prepare import PrepareConfig
from utils.config.serve import ServeConfig
from utils.config.session import SessionConfig
from utils.config.sft import SFTConfig

ROOT = Path(__file__).resolve().parents[1]
KNOBS: dict[str, type[StageConfig]] = {
    "sft": SFTConfig,
    "dpo": DPOConfig,
    "evaluate": EvaluateConfig,
    "serve": ServeConfig,
}
LORA = {
    "r", "lora_alpha", "lora_dropout", "target_modules", "learning_rate", "num_train_epochs",
    "warmup_ratio",
}  # fmt: skip
SHAPE = {
    "model_name", "n_layer", "d_model", "n_head", "num_key_value_heads", "d_ff", "vocab_size",
    "sequence_length", "dropout", "rope_theta", "batch_size", "gradient_accumulation_steps",
}  # fmt: skip


def repeated(config, path):
    """Return the keys of a file whose value is the default."""
    values = config.read_file(path)
    now, default = config.build(values).resolved(), config().resolved()
    return {key for key in values if now[key] == default[key]}


@pytest.mark.parametrize("stage", KNOBS)
def test_a_list_of_knobs_holds_their_defaults(stage):
    path = ROOT / f"config/{stage}.json"
    assert repeated(KNOBS[stage], path) == KNOBS[stage].read_file(path).keys()


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_the_promised_settings_of_lora_are_there(stage):
    assert read_config_file(ROOT / f"config/{stage}.json").keys() >= LORA


def test_a_model_config_holds_the_whole_shape_so_that_no_default_changes_it():
    models = [path for path in (ROOT / "config").glob("*.json") if path.stem not in KNOBS]
    for path in models:
        assert read_config_file(path).keys() >= SHAPE, path


@pytest.mark.parametrize("path", (ROOT / "config/datasets").glob("*.json"), ids=lambda at: at.stem)
def test_a_data_set_says_its_source_vocabulary_context_and_language(path):
    told = {"input_path", "vocab_size", "sequence_length", "language"}
    assert repeated(PrepareConfig, path) <= told


@pytest.mark.parametrize("path", (ROOT / "sessions").glob("*.json"), ids=lambda at: at.stem)
def test_a_session_says_its_name_time_box_and_stages(path):
    told = {"name", "minutes", "stages"}
    assert told <= json.loads(path.read_text(encoding="utf-8")).keys()
    assert repeated(SessionConfig, path) <= told
