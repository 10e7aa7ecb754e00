"""The cache and the file of a model are proved, and broken ones are found."""

import pytest
import torch

from utils.config.model import ModelConfig
from utils.generation.engine import Batch
from utils.model.architecture import build_model
from utils.model.checkpoints import save_model_files
from utils.preflight.weights import cached_equals_uncached, save_and_load
from utils.tokenizers.load import load_tokenizer

PROMPTS = [[2, 40, 41, 42, 43, 44, 45, 46], [2, 90, 91]]


@pytest.fixture(scope="module")
def model():
    shape = dict(n_layer=2, d_model=64, n_head=2, d_ff=128, vocab_size=600, sequence_length=128)
    return build_model(ModelConfig(**shape)).eval()


def test_the_real_cache_equals_no_cache(model):
    result = cached_equals_uncached(model, PROMPTS)
    assert result.ok, result.line()


class WithoutPast(Batch):
    """Forgets what it has read."""

    def step(self, tokens, rows):
        self.logits = Batch(self._model, [[token] for token in tokens]).logits


class WrongPositions(Batch):
    """Counts the padding as positions."""

    def _forward(self, ids):
        inputs = {"input_ids": ids}
        if self._mask is not None:
            inputs["attention_mask"] = self._mask
            end = self._mask.shape[1]
            start = end - ids.shape[1]
            # One position too far apart from the second call on.
            inputs["position_ids"] = (torch.arange(start, end) * 2).expand(len(ids), -1)
        with torch.inference_mode():
            output = self._model(**inputs, past_key_values=self._cache, use_cache=True)
        return output.logits[:, -1].float()


@pytest.mark.parametrize("begin", [WithoutPast, WrongPositions])
def test_a_broken_cache_is_found(model, begin):
    assert not cached_equals_uncached(model, PROMPTS, begin).ok


def card(tokenizer_dir):
    sha256 = load_tokenizer(tokenizer_dir).sha256
    return {"stage": "pretrain", "template": None, "tokenizer_sha256": sha256}


def test_a_saved_model_comes_back_to_the_bit(model, tokenizer_dir):
    result = save_and_load(model, tokenizer_dir, card(tokenizer_dir))
    assert result.ok, result.line()
    assert result.measured == "logits differ by 0.0e+00"


def test_a_file_that_rounds_is_found(model, tokenizer_dir):
    def rounded(model, folder, **rest):
        state = {name: tensor.bfloat16().float() for name, tensor in model.state_dict().items()}
        save_model_files(model, folder, state_dict=state, **rest)

    assert not save_and_load(model, tokenizer_dir, card(tokenizer_dir), rounded).ok


def test_a_file_that_loses_a_tensor_is_found(model, tokenizer_dir):
    def lost(model, folder, **rest):
        state = dict(model.state_dict())
        del state["model.layers.1.mlp.up_proj.weight"]
        save_model_files(model, folder, state_dict=state, **rest)

    assert not save_and_load(model, tokenizer_dir, card(tokenizer_dir), lost).ok
