"""The decoder that the settings describe."""

import torch

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
