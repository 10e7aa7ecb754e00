"""Model configurations are found, validated and fitted into a memory."""

import json

import pytest

from utils.errors import ConfigError, DataError
from utils.planning.sizes import all_sizes, largest_batch, read_size, standard_sizes, step_bytes


def test_the_shipped_sizes_are_found(root):
    assert [size.name for size in standard_sizes(root / "config")] == [
        "nano",
        "tiny",
        "small",
        "base",
    ]
    names = [size.name for size in all_sizes(root / "config")]
    assert names == ["advanced_example", "base", "nano", "qwen3_tiny", "small", "tiny"]


def test_a_mistyped_key_is_named_with_its_file(tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps({"model_name": "mine", "n_layers": 3}))
    with pytest.raises(ConfigError, match=r"mine\.json: unknown key 'n_layers'.*'n_layer'"):
        all_sizes(tmp_path)


def test_a_value_that_cannot_be_is_named_with_its_file(tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps({"d_model": 250, "n_head": 4}))
    with pytest.raises(ConfigError, match=r"mine\.json.*d_model \(250\) must be a multiple"):
        all_sizes(tmp_path)


def test_a_folder_without_models_says_so(tmp_path):
    (tmp_path / "sft.json").write_text('{"r": 8}')
    with pytest.raises(DataError, match="no model configuration"):
        all_sizes(tmp_path)
    with pytest.raises(ConfigError, match="is no folder"):
        all_sizes(tmp_path / "nothing")


def test_the_largest_micro_batch_that_fits(root):
    tiny = read_size(root / "config/tiny.json")
    one, four = step_bytes(tiny, 1), step_bytes(tiny, 4)
    assert one < four < 4 * one
    assert largest_batch(tiny, four / 0.85 + 1, 16) == 4
    assert largest_batch(tiny, one / 0.85 - 1000, 16) == 0
    assert largest_batch(tiny, 1e12, 16) == 16


def test_fused_attention_needs_less(root):
    base = read_size(root / "config/base.json")
    assert step_bytes(base, 4, gpu=True) < 0.6 * step_bytes(base, 4)
