"""Number formats and kernels: contexts for sums and derivatives that mixed precision would spoil."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


def wide(t: Tensor) -> Tensor:
    """``t`` in float32 if it is float16 or bfloat16, else ``t``: for sums, and to keep close numbers distinct."""
    return t.float() if t.dtype in (torch.float16, torch.bfloat16) else t


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """No autocast on ``device``: for small computations that are differentiated twice, inverted or ranked."""
    return torch.autocast(device.type, enabled=False)


@contextmanager
def no_autocast_cache() -> Iterator[None]:
    """Autocast without its cache of cast weights, in contexts already open and in those opened inside.

    The cache maps a weight to its half-precision copy, graph included. A copy made under ``no_grad``, before an
    optimizer step or inside a functional transform would be returned later with the wrong graph or stale values.
    A weight is cast once per forward pass, so the cache saves nothing here.
    """
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Attention by its plain formula: fused kernels have neither a forward-mode nor a double-backward rule.

    For everything that ``torch.func.jvp``, ``forward_ad`` or ``create_graph=True`` differentiates.
    """
    with sdpa_kernel(SDPBackend.MATH), no_autocast_cache():
        yield
