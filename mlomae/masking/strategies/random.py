"""Uniform random masking, the baseline of every table (MAE, He et al. 2022, section 3)."""

from __future__ import annotations

from torch import Tensor

from mlomae.masking.base import MaskState, UnweightedMasking, register


@register("random")
class RandomMasking(UnweightedMasking):
    """Each patch's score is uniform noise; the patches with the highest scores are removed."""

    def __init__(self, embed_dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.length = grid[0] * grid[1]

    def ranking(self, images: Tensor, ratio: float, state: MaskState) -> Tensor:
        return state.uniform(self.length)
