"""Uniform random masking, the baseline of every table (MAE, He et al. 2022, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from mlomae.masking.base import Mask, MaskingStrategy, MaskState, mask_from_scores, register


@register("random")
class RandomMasking(MaskingStrategy):
    """Each patch's score is uniform noise; the patches with the highest scores are removed."""

    def __init__(self, embed_dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.length = grid[0] * grid[1]

    def forward(self, tokens_BLD: Tensor, images: Tensor, ratio: float, epoch: Tensor | int, state: MaskState) -> Mask:
        if state.fixed is not None:
            return state.fixed.with_weight(torch.ones_like(state.fixed.mask))
        return mask_from_scores(state.uniform(self.length), ratio)
