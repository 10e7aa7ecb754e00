"""How much a step takes, and what a failed allocation looks like."""

import ctypes
import mmap
import sys

import pytest
import torch

from utils.machine.memory import (
    available_bytes,
    is_out_of_memory,
    peak_bytes,
    reset_peak,
    smaller_micro_batch,
    used_bytes,
)

CPU = torch.device("cpu")


def test_torch_on_a_cpu_says_it_in_words_of_its_own():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**62, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_only_memory_counts():
    assert is_out_of_memory(MemoryError()) and is_out_of_memory(torch.OutOfMemoryError("x"))
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("DefaultCPUAllocator"))


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_the_peak_is_that_since_the_last_reset():
    size = 200_000_000
    reset_peak(CPU)
    before = used_bytes(CPU)
    with mmap.mmap(-1, size) as block:
        ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(block)), 1, size)
    assert 0.95 * size < peak_bytes(CPU) - before < 1.3 * size
    reset_peak(CPU)
    assert peak_bytes(CPU) - before < 0.2 * size
    assert available_bytes(CPU) > 0


def test_a_smaller_micro_batch_divides_the_rows():
    assert [smaller_micro_batch(48, size) for size in (16, 8, 3, 2, 1)] == [8, 4, 1, 1, None]
    assert smaller_micro_batch(9, 9) == 3
