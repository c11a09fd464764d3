"""Global switches under which torch's derivatives are the ones the equations ask for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def no_autocast_cache() -> Iterator[None]:
    """Autocast without its cache of cast weights, in contexts already open and in those opened inside.

    The cache maps a weight to its half-precision copy, graph included. A copy made under ``no_grad``, before an
    optimizer step or inside a functional transform would be handed out later with the wrong graph or stale values.
    A weight is cast once per forward, so the cache saves nothing here.
    """
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Attention by its plain formula: fused kernels have neither a forward-mode nor a double-backward rule."""
    with sdpa_kernel(SDPBackend.MATH), no_autocast_cache():
        yield


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No autocast on ``device``: the head is tiny and is differentiated twice, so it is never rounded to 8 bits."""
    with torch.autocast(device.type, enabled=False):
        yield
