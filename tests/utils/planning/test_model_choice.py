from pathlib import Path

import pytest

from utils.machine.probe import Speed
from utils.planning.model_choice import choose_model

ROOT = Path(__file__).resolve().parents[3]
SIZES = [ROOT / "config" / f"{size}.json" for size in ("nano", "tiny", "small", "base")]
LAPTOP = Speed("cpu", 9e11, "bf16", 6.0, 16_000_000_000, {})
OLD_LAPTOP = Speed("cpu", 1.5e11, "fp32", 6.0, 16_000_000_000, {})
H200 = Speed("cuda", 7.8e14, "bf16", 6.0, 140_000_000_000, {})


def test_two_cores_and_15_minutes_get_tiny_with_8192_pieces_and_steps_of_4096_tokens():
    plan = choose_model(SIZES, 900, LAPTOP, 36e6, {})
    assert (plan.settings["n_layer"], plan.settings["d_model"]) == (6, 256)
    assert plan.settings["vocab_size"] == 8192
    assert plan.tokens_per_step == 4096
    assert 5e6 < plan.tokens < 12e6  # 8.5M were measured on such a machine
    assert plan.parameters == pytest.approx(8.4e6, rel=0.01)
    assert "10 are wanted" in plan.reason


def test_minutes_on_a_processor_without_bf16_get_nano_with_4096_pieces_and_steps_of_2048_tokens():
    plan = choose_model(SIZES, 200, OLD_LAPTOP, 36e6, {})
    assert plan.settings["model_name"] == "nano"
    assert plan.settings["vocab_size"] == 4096
    assert plan.tokens_per_step == 2048
    assert plan.parameters == pytest.approx(1.57e6, rel=0.01)
    assert "0.3 are wanted" in plan.reason


def test_too_little_time_for_any_size_gets_the_smallest():
    plan = choose_model(SIZES, 10, OLD_LAPTOP, 36e6, {})
    assert plan.settings["model_name"] == "nano"
    assert "smallest size" in plan.reason


def test_a_big_gpu_and_an_endless_corpus_get_a_larger_size_with_the_full_tokenizer():
    plan = choose_model(SIZES, 3600, H200, None, {})
    assert plan.settings["model_name"] in ("small", "base")
    assert plan.settings["vocab_size"] == 32768
    assert plan.settings["sequence_length"] >= 1024
    assert plan.tokens >= 10 * plan.parameters


def test_a_small_corpus_keeps_the_model_small_on_any_machine():
    plan = choose_model(SIZES, 3600, H200, 36e6, {})
    assert plan.settings["model_name"] == "tiny"
    assert plan.tokens <= 16 * 36e6 / 3.5


def test_a_size_without_room_in_memory_is_not_chosen():
    little = Speed("cuda", 7.8e14, "bf16", 6.0, 2_000_000_000, {})
    assert choose_model(SIZES, 3600, little, None, {}).settings["model_name"] == "tiny"


@pytest.mark.parametrize(
    ("size", "pieces"), [(100_000, 1024), (300_000, 2048), (1e6, 4096), (3e6, 8192)]
)
def test_a_short_text_gets_a_tokenizer_it_can_fill(size, pieces):
    assert choose_model(SIZES[1:], 300, LAPTOP, size, {}).settings["vocab_size"] == pieces


def test_own_settings_win_over_the_plan():
    plan = choose_model(SIZES, 900, LAPTOP, 36e6, {"d_model": "128", "n_layer": "2"})
    assert (plan.settings["n_layer"], plan.settings["d_model"]) == (2, 128)
    assert plan.parameters < 3e6
