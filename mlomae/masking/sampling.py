"""What strategies draw and rank with: Gumbel noise, object patches, rectangles of patches.

Shape legend: B batch, L patches, S image side in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def object_patches(object_BSS: Tensor, grid: tuple[int, int], threshold: float = 0.25) -> Tensor:
    """Patches covered by objects over more than ``threshold`` of their area: (B, S, S) bool -> (B, L) float 0 or 1."""
    cover = F.adaptive_avg_pool2d(object_BSS.float().unsqueeze(1), grid).flatten(1)
    return (cover > threshold).float()


def gumbel(uniform: Tensor) -> Tensor:
    """Standard Gumbel noise from uniform numbers; adding it to log-odds makes top-k a sample without replacement."""
    return -torch.log(-torch.log(uniform))


def inside(first_B: Tensor, size_B: Tensor, n: int) -> Tensor:
    """(B, n) bool: which of n rows (or columns) lie in [first, first + size)."""
    at = torch.arange(n, device=first_B.device)
    return (at >= first_B[:, None]) & (at < (first_B + size_B)[:, None])
