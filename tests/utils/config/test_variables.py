"""Which Make variables a command takes, and as which flags."""

import pytest

from utils.config.evaluate import EvaluateConfig
from utils.config.pretrain import PretrainConfig
from utils.config.serve import ServeConfig
from utils.config.session import SessionConfig
from utils.config.variables import COMMANDS, flags_of, main, slips, variables_of


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
