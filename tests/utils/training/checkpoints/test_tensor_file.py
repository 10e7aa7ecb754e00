"""The files are those of the safetensors library, to the byte."""

import pytest
import torch
from safetensors.torch import save_file

from tests.utils.training.saves import toy_parts
from utils.training.checkpoints.tensor_file import write_tensors


@pytest.mark.parametrize("metadata", [{}, {"format": "pt"}])
def test_the_bytes_are_those_of_the_library(tmp_path, metadata):
    tensors = {
        "b.weight": torch.randn(3, 5),
        "a:step": torch.tensor(7.0),
        "half": torch.randn(9).bfloat16(),
        "ids": torch.arange(3),
        "empty": torch.zeros(0, 4),
        "turned": torch.randn(4, 6).T,
    }
    write_tensors(tmp_path / "ours", tensors, metadata)
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(whole, tmp_path / "theirs", metadata or None)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


@pytest.mark.parametrize("tie", [True, False])
def test_the_weights_are_those_that_transformers_writes(tmp_path, tie):
    model, _ = toy_parts(tie_embeddings=tie)
    model.save_pretrained(tmp_path)
    write_tensors(tmp_path / "ours", dict(model.named_parameters()), {"format": "pt"})
    theirs = (tmp_path / "model.safetensors").read_bytes()
    assert (tmp_path / "ours").read_bytes() == theirs
