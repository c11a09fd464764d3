"""What a score may follow in place of objects: properties of a patch that take no learning.

A score that ranks patches by their brightness can look as if it had found something. Each property is compared with the
score by Spearman's rank correlation over the patches of an image, then averaged over images.

Shape legend: B images, S image side in pixels, gh gw patch grid, ph pw pixels of a patch, L patches.
"""

import torch
from torch import Tensor

from mlomae.data.augment import IMAGENET_MEAN, IMAGENET_STD

RIVALS = ("brightness", "contrast", "edges", "middle")
_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, as in ITU-R BT.601


def patch_properties(image_B3SS: Tensor, grid: tuple[int, int]) -> dict[str, Tensor]:
    """Of each patch of normalised images, (B, L) each, by the name of the property:

    - brightness: the mean of its grey levels. contrast: their standard deviation.
    - edges: the mean size of the differences of neighbouring pixels, down and across.
    - middle: nearness of its centre to that of the image; 0 there, negative elsewhere.
    """
    weight_3 = torch.tensor(_LUMA) * torch.tensor(IMAGENET_STD)
    mean = float((torch.tensor(_LUMA) * torch.tensor(IMAGENET_MEAN)).sum())
    grey_BSS = torch.einsum("bcij,c->bij", image_B3SS.detach().float().cpu(), weight_3) + mean
    down_BSS = torch.diff(grey_BSS, dim=1, append=grey_BSS[:, -1:]).abs()
    across_BSS = torch.diff(grey_BSS, dim=2, append=grey_BSS[:, :, -1:]).abs()
    rows, columns = ((2 * torch.arange(n) + 1 - n) / (2 * n) for n in grid)  # whole numbers first: ties stay ties
    middle_L = -(rows[:, None] ** 2 + columns**2).sqrt().flatten()
    return {
        "brightness": _pixels(grey_BSS, grid).mean(dim=2),
        "contrast": _pixels(grey_BSS, grid).std(dim=2, correction=0),
        "edges": _pixels(down_BSS + across_BSS, grid).mean(dim=2),
        "middle": middle_L.expand(len(image_B3SS), -1),
    }


def _pixels(values_BSS: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, L, ph · pw)."""
    batch, height, width = values_BSS.shape
    parts = values_BSS.reshape(batch, grid[0], height // grid[0], grid[1], width // grid[1])
    return parts.transpose(2, 3).flatten(3).flatten(1, 2)


def rank_correlation(a_BL: Tensor, b_BL: Tensor) -> float | None:
    """Spearman's, ties by their mean rank, averaged over the images where neither is constant; None without one."""
    from scipy.stats import rankdata  # a second, and few commands need it

    ranks = [torch.from_numpy(rankdata(x.detach().double().cpu().numpy(), axis=1)) for x in (a_BL, b_BL)]
    a, b = (rank - rank.mean(dim=1, keepdim=True) for rank in ranks)
    size_B = (a.square().sum(dim=1) * b.square().sum(dim=1)).sqrt()
    known_B = size_B > 0
    return float(((a * b).sum(dim=1)[known_B] / size_B[known_B]).mean()) if known_B.any() else None


def score_follows(score_BL: Tensor, image_B3SS: Tensor, grid: tuple[int, int]) -> dict[str, float | None]:
    """`rank_correlation` of a score with each of the RIVALS."""
    found = patch_properties(image_B3SS, grid)
    return {name: rank_correlation(score_BL, found[name]) for name in RIVALS}
