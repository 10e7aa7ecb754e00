"""The decoder that the settings describe."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from utils.config.model import ModelConfig
from utils.model.architecture import build_model

TOY = ModelConfig(n_layer=2, d_model=64, n_head=4, num_key_value_heads=2, d_ff=96, vocab_size=300)


def test_shapes_follow_the_settings():
    model = build_model(TOY)
    block = model.model.layers[0]
    assert len(model.model.layers) == 2
    assert block.self_attn.q_proj.weight.shape == (64, 64)
    assert block.self_attn.k_proj.weight.shape == (32, 64)  # 2 of 4 heads of width 16
    assert block.mlp.gate_proj.weight.shape == (96, 64)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_equal_seeds_give_equal_weights_and_other_seeds_do_not():
    first, again, other = (build_model(TOY, seed).state_dict() for seed in (1, 1, 2))
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name])


def test_end_of_text_is_start_of_text():
    config = build_model(TOY).config
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (2, 2, 3)


def test_qwen3_normalises_queries_and_keys_and_has_no_bias():
    model = build_model(TOY.model_copy(update={"architecture": "qwen3"}))
    names = {name for name, _ in model.named_parameters()}
    assert model.config.model_type == "qwen3" and model.config.tie_word_embeddings
    assert model.model.layers[0].self_attn.q_norm.weight.shape == (16,)
    assert not [name for name in names if "bias" in name]
    extra = {name for name in names if "q_norm" in name or "k_norm" in name}
    assert names - extra == {name for name, _ in build_model(TOY).named_parameters()}


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_a_saved_model_loads_in_plain_transformers_with_the_same_logits(architecture, tmp_path):
    model = build_model(TOY.model_copy(update={"architecture": architecture})).eval()
    model.save_pretrained(tmp_path)
    plain, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    plain.load_state_dict(model.state_dict(), strict=True)
    ids = torch.randint(4, 300, (2, 20))
    assert torch.equal(plain(ids).logits, model(ids).logits)
