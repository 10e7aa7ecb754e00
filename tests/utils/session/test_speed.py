"""The measured rate is a rate."""

import time

from utils.session.speed import gemm_rate


def test_the_rate_is_positive_and_the_time_is_bounded():
    started = time.perf_counter()
    rate, precision = gemm_rate("cpu", 0.1)
    assert time.perf_counter() - started < 20  # importing torch included, on a busy machine
    assert 1e8 < rate < 1e15
    assert precision in ("bfloat16", "float32")
