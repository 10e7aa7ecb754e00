"""A random model whose greedy answers vary (a tied one repeats its last token)."""

from dataclasses import replace

import pytest
import torch

from utils.model.checkpoints import LoadedModel, load_model


@pytest.fixture(scope="session")
def loaded(checkpoint_dir) -> LoadedModel:
    """The toy checkpoint in fp32 with fresh, larger weights and one more stop token."""
    model = load_model(checkpoint_dir, device="cpu")
    torch.manual_seed(3)
    for name, weight in model.model.named_parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.3 if "embed" in name else 0.15)
    model.model.generation_config.eos_token_id = [2, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50]
    return replace(model)
