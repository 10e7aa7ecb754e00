"""Copies in memory of the host."""

import torch

from utils.training.checkpoints import host_copy as snapshot
from utils.training.checkpoints.host_copy import HostCopy


def test_a_copy_holds_while_the_tensors_change_and_its_memory_is_used_again():
    host = HostCopy()
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(5.0)}
    first = host.take(tensors)
    tensors["a"] += 1
    assert first["a"].tolist() == [[0, 1, 2], [3, 4, 5]] and first["b"].item() == 5
    places = {name: copy.data_ptr() for name, copy in first.items()}
    second = host.take(tensors)
    assert {name: copy.data_ptr() for name, copy in second.items()} == places
    assert second["a"].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_memory_is_counted_once(monkeypatch):
    available = type("Memory", (), {"available": 1000})
    monkeypatch.setattr(snapshot.psutil, "virtual_memory", lambda: available)
    host = HostCopy()
    fits, too_large = {"a": torch.zeros(125)}, {"b": torch.zeros(126)}
    assert host.fits(fits) and not host.fits(too_large)  # 500 and 504 of half of 1000 bytes
    host.reserve(fits)
    available.available = 0
    assert host.fits(fits) and not host.fits(fits | too_large)
