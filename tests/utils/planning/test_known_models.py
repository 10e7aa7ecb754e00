"""Parameters of published models are those that transformers counts for their shapes."""

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from utils.config.model import ModelConfig
from utils.model.sizing import count_parameters
from utils.planning.known_models import KNOWN_MODELS, nearest_known


def published_config(model):
    """The config.json of a known model, in the words of its family."""
    common = dict(vocab_size=model.vocab_size, tie_word_embeddings=model.tie_embeddings)
    plain = dict(
        hidden_size=model.d_model,
        num_hidden_layers=model.n_layer,
        num_attention_heads=model.n_head,
        intermediate_size=model.d_ff,
        max_position_embeddings=model.positions,
    )
    families = {
        "gpt2": dict(
            n_embd=model.d_model, n_layer=model.n_layer, n_head=model.n_head,
            n_positions=model.positions, n_inner=model.d_ff,
        ),
        "gpt_neox": plain,
        "gpt_neo": dict(
            hidden_size=model.d_model, num_layers=model.n_layer, num_heads=model.n_head,
            intermediate_size=model.d_ff, max_position_embeddings=model.positions,
            attention_types=[[["global", "local"], model.n_layer // 2]],
        ),
        "opt": dict(
            hidden_size=model.d_model, num_hidden_layers=model.n_layer, ffn_dim=model.d_ff,
            num_attention_heads=model.n_head, max_position_embeddings=model.positions,
            word_embed_proj_dim=model.d_model,
        ),
        "llama": plain | dict(num_key_value_heads=model.num_key_value_heads),
        "qwen3": plain
        | dict(num_key_value_heads=model.num_key_value_heads, head_dim=model.head_dim),
    }  # fmt: skip
    return AutoConfig.for_model(model.family, **common, **families[model.family])


@pytest.mark.parametrize("model", KNOWN_MODELS, ids=lambda model: model.name)
def test_the_count_is_that_of_transformers(model):
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(published_config(model))
    assert sum(p.numel() for p in built.parameters()) == model.parameters
    assert isinstance(built, transformers.PreTrainedModel)


@pytest.mark.parametrize("model", [m for m in KNOWN_MODELS if m.family == "llama"])
def test_our_own_formula_gives_the_published_counts(model):
    config = ModelConfig(
        n_layer=model.n_layer, d_model=model.d_model, n_head=model.n_head, d_ff=model.d_ff,
        num_key_value_heads=model.num_key_value_heads, vocab_size=model.vocab_size,
        tie_embeddings=model.tie_embeddings,
    )  # fmt: skip
    assert count_parameters(config).total == model.parameters


def test_the_nearest_is_nearest_by_ratio():
    assert nearest_known(124_000_000).name == "GPT-2 124M"
    assert nearest_known(1_000).name == "Pythia-14m"
    assert nearest_known(130_000_000).name == "SmolLM-135M"
    assert [m.parameters for m in KNOWN_MODELS] == sorted(m.parameters for m in KNOWN_MODELS)
