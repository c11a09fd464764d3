"""Masks from statistics of the pixels: busy patches, or flat ones, are removed more often. Nothing is learned.

Not a published method but a control for every strategy that claims to find informative patches by attention, loss or
feedback: if local contrast explains their gain, this strategy has it too. Sampling without replacement with given
weights is how AMT (Liu et al., AAAI 2023) turns attention into masks; the weights are ours.

Shape legend: B batch, S image side, L patches, gh gw patch grid.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mlomae.common.precision import wide
from mlomae.common.registry import NotNegative
from mlomae.masking.base import MaskState, UnweightedMasking, register

FLOOR = 0.01  # added to a statistic whose mean over the image is 1: a flat patch has small odds, not none


def per_patch(pixels_BCSS: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mean over the pixels and channels of every patch: (B, C, S, S) -> (B, L)."""
    return F.adaptive_avg_pool2d(pixels_BCSS, grid).mean(dim=1).flatten(1)


def variance(images_B3SS: Tensor, grid: tuple[int, int]) -> Tensor:
    """Variance of the pixels of every patch, mean over channels, (B, L)."""
    centre = F.adaptive_avg_pool2d(images_B3SS, grid)
    centre = F.interpolate(centre, size=images_B3SS.shape[-2:], mode="nearest-exact")
    return per_patch((images_B3SS - centre).square(), grid)


def edge_density(images_B3SS: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mean length of the grey image's gradient (central differences) over every patch, (B, L).

    The mean length, not the share of pixels above a threshold: there is no threshold to choose and hardly ever a tie.
    """
    grey = F.pad(images_B3SS.mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across = (grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2]) / 2
    down = (grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]) / 2
    return per_patch(torch.hypot(across, down), grid)


STATISTICS = {"variance": variance, "edges": edge_density}


@register("pixel_statistics")
@dataclass(eq=False, repr=False)
class PixelStatisticsMasking(UnweightedMasking):
    """Patches are removed by their variance or edge density s, relative to the mean over the image.

    - ``statistic``: "variance" or "edges".
    - ``prefer``: "high" removes patches with much of it, "low" those with little.
    - ``sampling``: "gumbel_topk" draws without replacement with odds (s + 0.01)^strength ("high") or
      (s + 0.01)^-strength ("low"), as Gumbel noise on the logarithm of the odds; "topk" removes the most extreme
      patches, always the same ones of an image (of equal patches the later).
    - ``strength``: exponent of the odds; 0 is random masking. No effect on "topk".
    """

    statistic: Literal["variance", "edges"] = "variance"
    prefer: Literal["high", "low"] = "high"
    sampling: Literal["gumbel_topk", "topk"] = "gumbel_topk"
    strength: NotNegative = 1.0

    def ranking(self, images: Tensor, ratio: float, state: MaskState) -> Tensor:
        s_BL = STATISTICS[self.statistic](wide(images), self.grid)
        sign = 1.0 if self.prefer == "high" else -1.0
        if self.sampling == "topk":
            return sign * s_BL
        relative = s_BL / s_BL.mean(dim=1, keepdim=True).clamp(min=1e-12)
        return sign * self.strength * (relative + FLOOR).log() + state.gumbel(s_BL.shape[1])
