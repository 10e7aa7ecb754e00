"""A setting says itself what it is, and the hashes that follow from it stay."""

import pytest

from utils.config.base import Section
from utils.config.kinds import BySession, Kind, Reach, Variable, mark_of
from utils.config.prepare import MixtureSource, PrepareConfig
from utils.config.pretrain import PretrainConfig
from utils.config.variables import STAGE_CONFIGS
from utils.data.identity import identity_of, settings_without_places
from utils.files import fingerprint
from utils.training.inputs import Inputs
from utils.training.run import run_identity

MARKED: dict[str, type[Section]] = {**STAGE_CONFIGS, "mixture": MixtureSource}


@pytest.mark.parametrize("config", MARKED.values(), ids=MARKED)
def test_a_new_setting_must_say_what_it_is(config):
    silent = set(config.model_fields) - set(config.names(*Kind))
    assert not silent, f"write Shaping[...], Indirect[...] or Manner[...] around {silent}"


@pytest.mark.parametrize("config", MARKED.values(), ids=MARKED)
def test_no_mark_of_a_class_stands_twice(config):
    for name, field in config.model_fields.items():
        marks = [type(mark) for mark in field.metadata]
        for mark in (Kind, Reach, Variable, BySession):
            assert marks.count(mark) <= 1, f"{name} has two marks {mark.__name__}"


def test_how_a_run_is_made_and_where_it_lies_is_no_part_of_its_identity():
    assert set(PretrainConfig.names(Kind.MANNER, Kind.INDIRECT)) == {
        "batch_size", "gradient_accumulation_steps", "cost_per_hour", "cpu", "data_dir",
        "data_dirs", "data_path", "disk_budget_gb", "early_stopping_min_delta",
        "early_stopping_patience", "eval_steps", "eval_tokens", "keep_every", "logging_steps",
        "max_minutes", "model_name", "output_dir", "plan", "preflight", "resume_from_checkpoint",
        "save_minutes", "save_steps", "save_total_limit", "tensorboard", "tokens_on_gpu", "wandb",
    }  # fmt: skip
    assert set(PrepareConfig.names(Kind.MANNER)) == {
        "num_workers", "output_dir", "keep_cache", "download_workers", "executor", "ray_address",
        "grow",
    }  # fmt: skip
    assert set(PrepareConfig.names(Kind.INDIRECT)) == {
        "token_compression", "input_path", "tokenizer_path", "mix_datasets", "eval_data_dir",
    }  # fmt: skip


def test_what_a_session_decides_is_marked_in_every_stage():
    def decided(stage):
        fields = STAGE_CONFIGS[stage].model_fields.items()
        return {name for name, field in fields if mark_of(field.metadata, BySession)}

    training = {"max_minutes", "output_dir"}
    data = {"data_dir", "data_path", "data_dirs"}
    assert decided("prepare") == decided("samples") == {"output_dir"}
    assert decided("pretrain") == {*training, *data, "resume_from_checkpoint"}
    assert decided("sft") == decided("dpo") == {*training, "model_path", "dataset_path"}
    assert decided("evaluate") == {*training, "model_path", "data_dir"}


@pytest.mark.parametrize(
    ("argv", "identity"),
    [
        ("--config config/nano.json", "4f798a742c14c139"),
        ("--config config/nano.json --batch_size 4 --gradient_accumulation_steps 2 --wandb "
         "--data_dir x --output_dir y --logging_steps 3 --plan p", "4f798a742c14c139"),
        ("--config config/tiny.json --learning_rate 1e-3", "fd73295be30e6583"),
        ("--config config/small.json", "7f5566107966de9b"),
        ("--config config/base.json --reduce canonical --global_batch_size 64",
         "166e84be36f31150"),
    ],
)  # fmt: skip
def test_runs_of_earlier_versions_keep_their_identity(argv, identity):
    cfg = PretrainConfig.from_cli(argv.split())
    assert run_identity(Inputs(cfg, (), {})) == identity


@pytest.mark.parametrize(
    ("argv", "settings_hash", "recorded"),
    [
        ("", "ed35cfea6d1b5dbf", "035e37e0396eb295"),
        ("--config config/datasets/mixture_example.json", "2be4a39b5d0ab574", "ed8e2c799cfe6cff"),
        (
            "--vocab_size 1024 --input_path /a/b/c --num_workers 3 --output_dir z",
            "5c3e875e04f99a46",
            "dab3aef7caec1af5",
        ),
        ("--token_compression lz4 --eval_data_dir /q/e", "ed35cfea6d1b5dbf", "09fbdba9c215de55"),
        ("--language de --no_grow", "6f515e0992737953", "be5696006b8703a7"),
    ],
)
def test_prepared_folders_of_earlier_versions_keep_their_identity(argv, settings_hash, recorded):
    cfg = PrepareConfig.from_cli(argv.split())
    assert identity_of(cfg, [], [])["settings_hash"] == settings_hash
    assert fingerprint(settings_without_places(cfg)) == recorded
