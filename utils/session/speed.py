"""How fast this machine multiplies matrices: what training time is estimated from."""

import time

GEMM_SIZE = 1024
GPU_GEMM_SIZE = 8192
"""A GPU needs bigger products to be busy."""
PRECISIONS = ("bfloat16", "float32")


def gemm_rate(device: str, seconds: float) -> tuple[float, str]:
    """Return the best matrix-product rate in FLOP/s, and the precision it was reached in.

    Takes about `seconds`, divided among the precisions.
    """
    share = seconds / len(PRECISIONS)
    rates = {name: _rate(device, name, share) for name in PRECISIONS}
    best = max(rates, key=lambda name: rates[name])
    return rates[best], best


def _rate(device: str, precision: str, seconds: float) -> float:
    import torch

    size = GPU_GEMM_SIZE if device == "cuda" else GEMM_SIZE
    left = torch.randn(size, size, device=device).to(getattr(torch, precision))
    right = left.t().contiguous()
    (left @ right)[0, 0].item()  # the first product pays for start-up
    best_s, until = float("inf"), time.perf_counter() + seconds
    while True:
        started = time.perf_counter()
        (left @ right)[0, 0].item()
        ended = time.perf_counter()
        best_s = min(best_s, ended - started)
        if ended >= until:
            return 2 * size**3 / best_s
