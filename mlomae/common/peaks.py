"""What devices compute at most, and how much memory they have."""

import time
from typing import NamedTuple

import torch


class Peak(NamedTuple):
    """Dense matrix products, in operations a second (a multiply-add is two): ``bf16`` with accumulation in float32,
    ``fp32`` without TF32, which torch does not use by default. ``memory`` in bytes."""

    title: str
    bf16: float
    fp32: float
    memory: float


PEAKS = {
    "h100": Peak("H100 SXM", 989.4e12, 66.9e12, 80e9),
    "a100": Peak("A100 SXM", 312e12, 19.5e12, 80e9),
}
"""Source: NVIDIA's data sheets, "H100 Tensor Core GPU" and "A100 80GB Tensor Core GPU"; dense bf16 is half of what the
first gives with sparsity. The A100 of 40 GB differs in its memory alone."""


def matrix_rate(dtype: torch.dtype, side: int = 2048) -> float:
    """Operations a second of this processor in a large product of square matrices, the best of three; in a second."""
    a, b = torch.ones(side, side, dtype=dtype), torch.ones(side, side, dtype=dtype)
    out, seconds = a @ b, []  # the first one makes ready
    for _ in range(3):
        started = time.perf_counter()
        torch.mm(a, b, out=out)
        seconds.append(time.perf_counter() - started)
    return 2.0 * side**3 / min(seconds)
