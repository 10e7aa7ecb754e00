"""Which Make variables a command takes, and as which flags."""

import pytest

from utils.config.evaluate import EvaluateConfig
from utils.config.pretrain import PretrainConfig
from utils.config.serve import ServeConfig
from utils.config.session import SessionConfig
from utils.config.variables import (
    COMMANDS,
    check_flags,
    flags_of,
    main,
    slips,
    stage_overrides,
    to_flags,
    variables_of,
)
from utils.errors import ConfigError


def test_a_setting_in_capitals_is_its_variable_unless_it_says_otherwise():
    assert variables_of(PretrainConfig)["batch_size"] == "BATCH_SIZE"
    assert variables_of(EvaluateConfig)["data_dir"] == "EVAL_DATA_DIR"
    assert variables_of(SessionConfig) == {
        "minutes": "SESSION_MINUTES", "dataset_config": "CONFIG", "source": "SRC",
        "sft_dataset": "SFT_DATASET", "dpo_dataset": "DPO_DATASET", "model_path": "MODEL_PATH",
        "eval_data_dir": "EVAL_DATA_DIR", "seed": "SEED",
    }  # fmt: skip


@pytest.mark.parametrize("config", COMMANDS.values(), ids=COMMANDS)
def test_no_two_settings_of_a_command_share_a_variable(config):
    variables = list(variables_of(config).values())
    assert len(set(variables)) == len(variables)


def test_the_command_line_wins_over_the_environment_and_empty_is_unset():
    environ = {"BATCH_SIZE": "4", "SEED": "1", "DATA_DIRS": "a  b", "MAX_STEPS": ""}
    flags = flags_of(PretrainConfig, {"BATCH_SIZE": "8", "SEED": ""}, environ)
    assert flags == ["--batch_size", "8", "--data_dirs", "a", "b"]


def test_a_name_that_shells_export_counts_only_when_it_is_typed():
    assert flags_of(ServeConfig, {}, {"HOST": "mybox", "MODE": "api"}) == []
    assert flags_of(ServeConfig, {"HOST": "::1"}, {"HOST": "mybox"}) == ["--host", "::1"]


def test_a_slip_is_told_from_a_variable_of_another_program():
    assert slips(["BATCH_SIZ", "LEARNINGRATE", "SESSION_MINUTE"]) == {
        "BATCH_SIZ": "BATCH_SIZE",
        "LEARNINGRATE": "LEARNING_RATE",
        "SESSION_MINUTE": "SESSION_MINUTES",
    }
    others = ["OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "WANDB_API_KEY", "HF_HOME", "LUMI"]
    ours = ["BATCH_SIZE", "SFT_LEARNING_RATE", "LAUNCH", "RAW_DATASET", "TORCH_INDEX", "NANOGPT"]
    assert slips([*others, *ours]) == {}


def test_what_is_written_is_read_by_the_shell_as_it_was(capsys, monkeypatch):
    monkeypatch.delenv("SEED", raising=False)
    assert main(["serve", "SYSTEM_PROMPT=it's = $5", "TOP_K="]) == 0
    assert capsys.readouterr().out == "--system_prompt 'it'\"'\"'s = $5'\n"
    assert main(["serve", "TEMPERATUR=1"]) == 2
    assert "did you mean TEMPERATURE?" in capsys.readouterr().err


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
