"""How fast this machine multiplies matrices: what MFU divides by and plans are made from.

A known card counts with the dense bf16 rate (fp32 sums) of its data sheet, every other device with
the best product measured here.
"""

import logging
import re
import time
from dataclasses import dataclass

GEMM_SIZE = 1024
GPU_GEMM_SIZE = 8192
"""A GPU needs bigger products to be busy."""
PRECISIONS = ("bfloat16", "float32")
DATASHEET_TFLOPS = {
    # NVIDIA's data sheets and architecture papers; sparse figures are halved. H100, H200, GH200,
    # B200 data sheets:
    "B200": 2250.0, "GH200": 989.4, "H200 NVL": 835.5, "H200": 989.4,
    "H100 PCIe": 756.0, "H100 NVL": 835.5, "H100": 989.4,
    # A100, A30, A40, A10, L4, L40, L40S data sheets:
    "A100": 312.0, "A40": 149.7, "A30": 165.0, "A10": 125.0, "L40S": 362.0, "L40": 181.0,
    "L4": 121.0,
    # RTX A6000 and RTX 6000 Ada data sheets:
    "RTX A6000": 154.8, "RTX 6000 Ada": 364.2,
    # GeForce: Ampere GA102, Ada and RTX Blackwell papers; where these lack a card, twice its fp32
    # rate, which is the relation of all they list:
    "RTX 5090": 209.5, "RTX 5080": 112.6, "RTX 5070 Ti": 87.9, "RTX 5070": 61.7,
    "RTX 4090": 165.2, "RTX 4080 SUPER": 104.4, "RTX 4080": 97.5, "RTX 4070 Ti SUPER": 88.2,
    "RTX 4070 Ti": 80.2, "RTX 4070 SUPER": 71.0, "RTX 4070": 58.3, "RTX 4060 Ti": 44.1,
    "RTX 4060": 30.2, "RTX 3090 Ti": 80.0, "RTX 3090": 71.0, "RTX 3080 Ti": 68.2,
    "RTX 3080": 59.5, "RTX 3070 Ti": 43.5, "RTX 3070": 40.6, "RTX 3060 Ti": 32.4, "RTX 3060": 25.5,
}  # fmt: skip
"""Dense bf16 TFLOP/s by what the driver's name of a card contains; the longer names come first."""
NOT_WHOLE = ("Laptop", "MIG", "Max-Q")
"""Cards with these words in the name are slower than the one they are called after."""
PEAK_S = 0.4
"""Seconds in which a peak is measured."""
MORE_LOOKS = 3
"""How often a peak is measured again that turned out too low."""

log = logging.getLogger(__name__)


@dataclass
class Peak:
    """The most a device can compute, as far as it is known."""

    device: str
    """cuda, mps or cpu."""
    flops: float
    """FLOP/s of one device: the best rate seen so far."""
    source: str
    """Where the figure comes from, in words."""
    looks_left: int = MORE_LOOKS
    is_known: bool = True
    """Whether no work was seen that goes beyond it."""

    def facts(self) -> dict[str, float | str | None]:
        """Return the peak as run.json has it."""
        tflops = round(self.flops / 1e12, 3) if self.is_known else None
        return {"peak_tflops": tflops, "peak_source": self.source}

    def share(self, flops: float) -> float | None:
        """Return which part of the peak a rate in FLOP/s is, at most 1, None where it is not known.

        A rate above the peak shows that other programs used the device while it was measured: it
        is measured again. What still lies above it leaves the peak unknown from then on.
        """
        while flops > self.flops and self.looks_left:
            self.looks_left -= 1
            rate, precision = gemm_rate(self.device, PEAK_S)
            if rate > self.flops:
                self.flops, self.source = rate, f"measured product in {precision}"
        if flops > self.flops and self.is_known:
            self.is_known = False
            rates = flops / 1e12, self.flops / 1e12, self.source
            log.warning("MFU is not known: %.3g TFLOP/s exceed the peak of %.3g (%s)", *rates)
        return flops / self.flops if self.is_known else None


def device_peak(device: str, seconds: float = PEAK_S) -> Peak:
    """Return the peak of the device that training uses (cuda, mps or cpu)."""
    if device == "cuda":
        import torch

        name = torch.cuda.get_device_name()
        if (flops := datasheet_flops(name)) is not None:
            return Peak(device, flops, f"data sheet of {name}, dense bf16")
    rate, precision = gemm_rate(device, seconds)
    return Peak(device, rate, f"measured product in {precision}")


def datasheet_flops(name: str) -> float | None:
    """Return the dense bf16 FLOP/s of the card that the driver calls `name`, None if unknown."""
    if any(word in name for word in NOT_WHOLE):
        return None
    for card, tflops in DATASHEET_TFLOPS.items():
        if re.search(rf"\b{card}\b", name):
            return tflops * 1e12
    return None


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
    values = torch.linspace(-1, 1, size * size, device=device)  # no draw from the global generator
    left = values.reshape(size, size).to(getattr(torch, precision))
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
