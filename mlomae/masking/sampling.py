"""Helpers for drawing and ranking patches: Gumbel noise, ranks, hints, rectangles and cells of patches, object patches.

Shape legend: B batch, L patches, gh gw patch grid, S image side in pixels.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def gumbel(uniform: Tensor) -> Tensor:
    """Standard Gumbel noise from uniform numbers; adding it to log-odds makes top-k a sample without replacement."""
    return -torch.log(-torch.log(uniform))


def share_of(length: int, share: float) -> int:
    """⌊share · L⌋, nudged as in `keep_count`."""
    return int(share * length + 1e-6)


def ranks(values_BL: Tensor, ties_BL: Tensor) -> Tensor:
    """Rank of each patch in its image, ascending, (B, L) int64 from 0; ``ties_BL`` orders equal values."""
    order = torch.argsort(ties_BL, dim=1, stable=True)
    order = order.gather(1, torch.argsort(values_BL.gather(1, order), dim=1, stable=True))
    return torch.argsort(order, dim=1)


def uncover(ranks_BL: Tensor, pool: int, count: int, noise_BL: Tensor) -> Tensor:
    """Move ``count`` of the ``pool`` highest ranks, those with the most noise, below the others, which keep order."""
    length = ranks_BL.shape[1]
    lots_BL = ranks(torch.where(ranks_BL >= length - pool, noise_BL, -1.0), noise_BL)
    return torch.where(lots_BL >= length - count, ranks_BL - length, ranks_BL)


COVERED = 0.25  # of a patch's area, above which it belongs to what covers it


def object_patches(object_BSS: Tensor, grid: tuple[int, int], threshold: float = COVERED) -> Tensor:
    """Patches covered by objects over more than ``threshold`` of their area: (B, S, S) bool -> (B, L) float 0 or 1."""
    cover = F.adaptive_avg_pool2d(object_BSS.float().unsqueeze(1), grid).flatten(1)
    return (cover > threshold).float()


def central_patches(grid: tuple[int, int], area: float) -> Tensor:
    """Patches that the box covers by more than `COVERED`, (L,), 0 or 1, as `object_patches` would from its pixels."""
    covers = []
    for count in grid:
        low = torch.arange(count) / count
        half = area**0.5 / 2
        overlap = torch.minimum(low + 1 / count, torch.tensor(0.5 + half)) - low.clamp(min=0.5 - half)
        covers.append(overlap.clamp(min=0) * count)
    return (covers[0][:, None] * covers[1] > COVERED).flatten().float()


def inside(first_B: Tensor, size_B: Tensor, n: int) -> Tensor:
    """(B, n) bool: which of n rows (or columns) lie in [first, first + size)."""
    at = torch.arange(n, device=first_B.device)
    return (at >= first_B[:, None]) & (at < (first_B + size_B)[:, None])


def rectangle(rows_Bh: Tensor, columns_Bw: Tensor) -> Tensor:
    """(B, gh, gw) bool: patches in both the rows and the columns that are True."""
    return rows_Bh[:, :, None] & columns_Bw[:, None]


def cells(grid: tuple[int, int], side: int) -> Tensor:
    """Number of the cell of ``side`` x ``side`` patches that each patch lies in, row by row, (L,) int64.

    If ``side`` does not divide the grid, the cells of the last row and column are smaller.
    """
    row, column = (torch.arange(n) // side for n in grid)
    return (row[:, None] * ((grid[1] - 1) // side + 1) + column).flatten()
