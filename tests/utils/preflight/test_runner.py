"""Preflight inside a stage is one log line or one error; as a command it says what it saw."""

import json
import logging

import pytest
import torch

from utils.config.dpo import DPOConfig
from utils.config.preflight import PreflightConfig
from utils.config.pretrain import PretrainConfig
from utils.config.sft import SFTConfig
from utils.errors import DataError, PreflightError
from utils.preflight.result import CheckResult
from utils.preflight.runner import before_dpo, before_pretrain, before_sft, main, prove

SFT_ROWS = [{"prompt": f"What is {n}?", "response": f"{n} is a number."} for n in range(9)]
DPO_ROWS = [{"prompt": "What is 1?", "chosen": "A number.", "rejected": "A letter."}]
GOOD = CheckResult("cache", "0", "0", True, "repair it")
BAD = CheckResult("initial loss near ln V", "11.2", "10.4", False, "check vocab_size")


def test_good_results_are_counted():
    assert prove(iter([GOOD, GOOD, GOOD])) == 3


def test_the_first_failure_is_one_line_with_value_expectation_and_remedy():
    with pytest.raises(PreflightError) as failure:
        prove(iter([GOOD, BAD, GOOD]))
    assert str(failure.value) == (
        "preflight failed: initial loss near ln V: found 11.2, expected 10.4: check vocab_size"
    )


def test_no_proof_runs_after_a_failure():
    def results():
        yield BAD
        raise AssertionError("went on")

    with pytest.raises(PreflightError):
        prove(results())


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "sft.json").write_text(json.dumps(SFT_ROWS))
    (tmp_path / "dpo.json").write_text(json.dumps(DPO_ROWS))
    return tmp_path


def test_pretraining_gets_one_line_and_its_random_state_back(prepared_dir, caplog):
    cfg = PretrainConfig(vocab_size=600, sequence_length=128)
    state = torch.get_rng_state()
    with caplog.at_level(logging.INFO, logger="utils.preflight"):
        prove(before_pretrain(cfg, prepared_dir))
    lines = [record.message for record in caplog.records if record.name.startswith("utils.pref")]
    assert len(lines) == 1
    assert lines[0].startswith("preflight: 9 checks passed in ")
    assert torch.equal(torch.get_rng_state(), state)


def test_pretraining_with_the_wrong_vocabulary_is_stopped(prepared_dir):
    with pytest.raises(PreflightError) as failure:
        prove(before_pretrain(PretrainConfig(vocab_size=512, sequence_length=128), prepared_dir))
    assert str(failure.value).endswith("pass --vocab_size 600")
    assert "\n" not in str(failure.value)


def test_fine_tuning_stages_pass(checkpoint_dir, rows, caplog):
    with caplog.at_level(logging.INFO, logger="utils.preflight"):
        prove(before_sft(SFTConfig(model_path=checkpoint_dir, dataset_path=rows / "sft.json")))
        prove(before_dpo(DPOConfig(model_path=checkpoint_dir, dataset_path=rows / "dpo.json")))
    lines = [record.message for record in caplog.records if record.name.startswith("utils.pref")]
    assert [line.split(" in ")[0] for line in lines] == ["preflight: 4 checks passed"] * 2


def test_sft_whose_rows_are_all_too_long_is_stopped(checkpoint_dir, rows):
    cfg = SFTConfig(model_path=checkpoint_dir, dataset_path=rows / "sft.json", max_length=5)
    with pytest.raises(PreflightError, match="--max_length"):
        prove(before_sft(cfg))


def test_only_the_main_process_works(prepared_dir, monkeypatch, caplog):
    monkeypatch.setenv("RANK", "1")
    with caplog.at_level("INFO"):
        prove(before_pretrain(PretrainConfig(vocab_size=512), prepared_dir))  # fails on rank 0
    assert "checks passed" not in caplog.text


def test_the_command_checks_what_is_there_and_names_the_rest(
    prepared_dir, root, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    main(PreflightConfig(model_config_path=root / "config/tiny.json", data_dir=prepared_dir))
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("ok ") for line in lines) == 9
    missing = [line for line in lines if line.startswith("not checked: ")]
    names = [line.split(": ")[1] for line in missing]
    assert names == ["checkpoint", "conversations", "preferences"]
    assert lines[-1].startswith("preflight: 9 checks passed in ")


def test_the_command_uses_all_that_is_there(
    prepared_dir, checkpoint_dir, rows, root, monkeypatch, capsys
):
    monkeypatch.chdir(rows)
    main(
        PreflightConfig(
            model_config_path=root / "config/tiny.json",
            data_dir=prepared_dir,
            model_path=checkpoint_dir,
            sft_dataset_path=rows / "sft.json",
            dpo_dataset_path=rows / "dpo.json",
        )
    )
    out = capsys.readouterr().out
    assert "not checked" not in out
    assert "16 checks passed" in out


def test_the_command_reports_a_failure_and_goes_on(
    prepared_dir, checkpoint_dir, rows, root, monkeypatch, capsys
):
    monkeypatch.chdir(rows)
    (rows / "sft.json").write_text("[{}]")
    with pytest.raises(PreflightError, match="1 of 14 checks failed"):
        main(
            PreflightConfig(
                model_config_path=root / "config/tiny.json",
                data_dir=prepared_dir,
                model_path=checkpoint_dir,
                sft_dataset_path=rows / "sft.json",
                dpo_dataset_path=rows / "dpo.json",
            )
        )
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAILED")]
    assert len(failed) == 1
    assert "sft.json holds no usable row" in failed[0]


def test_a_folder_that_was_named_must_be_there(root, tmp_path):
    cfg = PreflightConfig(
        model_config_path=root / "config/tiny.json", data_dir=tmp_path / "nothing"
    )
    with pytest.raises(DataError):
        main(cfg)


def test_nothing_there_still_proves_the_signal(run_module, root, tmp_path):
    result = run_module(
        "utils.preflight.runner", "--model_config_path", root / "config/tiny.json", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert sum(line.startswith("ok ") for line in lines) == 3
    assert sum(line.startswith("not checked: ") for line in lines) == 4
