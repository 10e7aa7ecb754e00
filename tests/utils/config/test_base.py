"""Precedence and rejection rules of stage settings."""

import json

import pytest

from utils.config.base import UsageError
from utils.config.dpo import DPOConfig
from utils.config.prepare import PrepareConfig
from utils.config.pretrain import PretrainConfig
from utils.errors import ConfigError


@pytest.fixture
def config_file(tmp_path):
    def write(name="config.json", **values):
        path = tmp_path / name
        path.write_text(json.dumps(values))
        return str(path)

    return write


def test_flag_beats_later_file_beats_earlier_file_beats_default(config_file):
    first = config_file("a.json", batch_size=8, seed=7, n_layer=3)
    second = config_file("b.json", seed=8)
    cfg = PretrainConfig.from_cli(["--config", first, "--config_path", second, "--seed", "9"])
    assert (cfg.batch_size, cfg.n_layer, cfg.seed, cfg.d_model) == (8, 3, 9, 256)


def test_flag_that_is_absent_does_not_reset_a_boolean_of_the_file(config_file):
    assert not PretrainConfig.from_cli(["--config", config_file(deterministic=False)]).deterministic
    assert PrepareConfig.from_cli(["--config", config_file(use_minhash=True)]).use_minhash


@pytest.mark.parametrize(
    ("argv", "expected"),
    [(["--use_minhash"], True), (["--use_minhash", "false"], False), (["--no_use_minhash"], False)],
)
def test_a_boolean_can_be_given_in_three_ways(argv, expected):
    assert PrepareConfig.from_cli(argv).use_minhash is expected


def test_yaml_works_and_keys_with_underscore_are_comments(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("_note: mine\nvocab_size: 4000\nmix_datasets:\n- {name: a, input_path: b}\n")
    cfg = PrepareConfig.from_cli(["--config", str(path)])
    assert cfg.vocab_size == 4000 and cfg.sources[0].input_path == "b"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"d_modl": 256}, r"config\.json: unknown key 'd_modl': did you mean 'd_model'\?"),
        ({"batch_size": 0}, "batch_size = 0: Input should be greater than 0"),
        ({"n_head": 5}, r"d_model \(256\) must be a multiple of n_head \(5\)"),
    ],
)
def test_wrong_setting_is_named_in_one_line(config_file, values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        PretrainConfig.from_cli(["--config", config_file(**values)])
    assert "\n" not in str(caught.value)


def test_several_problems_are_reported_at_once():
    with pytest.raises(ConfigError, match=r"batch_size .*; .*beta"):
        DPOConfig.from_cli(["--batch_size", "x", "--beta", "-1"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": }', r"c\.json:1:7: not valid JSON"),
        ("[1]", "expected a mapping of settings, found list"),
    ],
)
def test_broken_files_are_named_with_their_place(tmp_path, content, message):
    path = tmp_path / "c.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        PretrainConfig.from_cli(["--config", str(path)])


def test_a_missing_file_or_value_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.json: there is no such file"):
        PretrainConfig.from_cli(["--config", str(tmp_path / "none.json")])
    with pytest.raises(UsageError, match="expected one argument"):
        PretrainConfig.from_cli(["--seed"])
