import pytest

from utils.errors import ConfigError
from utils.session.state.overrides import check_flags, stage_overrides, to_flags


def test_a_prefixed_variable_becomes_a_setting_of_its_stage_only():
    found = stage_overrides({"PRETRAIN_LEARNING_RATE": "1e-3", "DPO_BETA": "0.2", "SEED": "7"})
    assert found == {"pretrain": {"learning_rate": "1e-3"}, "dpo": {"beta": "0.2"}}


def test_plain_variables_the_data_sets_and_empty_ones_are_no_stage_settings():
    assert stage_overrides({"BATCH_SIZE": "8", "SFT_DATASET": "x.json", "SFT_R": ""}) == {}


def test_lists_are_split():
    found = stage_overrides({"SFT_TARGET_MODULES": "q_proj v_proj"})
    assert found["sft"]["target_modules"] == ["q_proj", "v_proj"]


def test_a_misspelt_variable_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"PRETRAIN_LEARNINGRATE.*did you mean 'learning_rate'"):
        stage_overrides({"PRETRAIN_LEARNINGRATE": "1"})


def test_a_wrong_value_is_refused():
    with pytest.raises(ConfigError, match=r"settings of stage sft: r = 'many'"):
        stage_overrides({"SFT_R": "many"})


def test_what_the_session_decides_is_refused_with_what_to_use_instead():
    with pytest.raises(ConfigError, match=r"PRETRAIN_MAX_MINUTES=3.*SESSION_MINUTES"):
        stage_overrides({"PRETRAIN_MAX_MINUTES": "3"})
    with pytest.raises(ConfigError, match=r"sft.model_path"):
        check_flags("sft", {"model_path": "x"})


def test_settings_become_flags():
    flags = to_flags({"seed": 1, "bf16": False, "target_modules": ["a", "b"], "none": None})
    assert flags == ["--seed", "1", "--bf16", "False", "--target_modules", "a", "b"]
